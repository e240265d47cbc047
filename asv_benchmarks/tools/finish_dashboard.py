"""Finish the dashboard that ``asv publish`` has written, for people who look at it.

    python asv_benchmarks/tools/finish_dashboard.py

- Benchmarks and rows that were skipped are left out, such as those of a GPU where there is none.
  What failed stays.
- Figures that span a decade or more are drawn on a logarithmic scale, unless the reader chooses.
- The list of regressions is that of ``regressions.py``, and asv's own feed of them is removed.
- Data become scripts, which a page that is opened from a folder can load too. Browsers do not let
  it read JSON.
- The page fits a phone.

asv's own files stay as they are, but for the few lines in ``CHANGED_LINES``. If an asv of another
version has other lines, this says so and stops.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

from regressions import BENCHMARKS, Measured, Report, judge_all

TOOLS = Path(__file__).parent
DECADE = 10.0
INDEX = "index.json"
# asv keeps the scale of the benchmark before if an address names none, and leaves what a reader has
# switched back to linear, or to a legend, out of the address.
CHANGED_LINES = {
    "graphdisplay.js": (
        (
            "        if (params['y-axis-scale']) {\n",
            "        log_scale = zoom_y_axis = false;\n"
            "        $('#log-scale, #zoom-y-axis').removeClass('active');\n"
            "        if (params['y-axis-scale']) {\n",
        ),
        ("log_scale ? ['log']: []", "log_scale ? ['log'] : ['linear']"),
        ("zoom_y_axis ? ['zoom'] : []", "zoom_y_axis ? ['zoom'] : ['linear']"),
        ("show_legend ? [] : [false]", "[show_legend]"),
    ),
    "summarygrid.js": (  # a line through one commit shows nothing
        ("shadowSize: 0", "points: {show: data.length === 1}, shadowSize: 0"),
    ),
    "regressions.js": (
        (
            '        var feed_div = $(\'<div class="feed-div"',
            "        var feed_div = $('<div hidden",
        ),
        ("factor.toFixed(2)", "Number(factor.toFixed(4))"),
    ),
    "index.html": (
        (
            "<head>\n",
            '<head>\n    <meta name="viewport" content="width=device-width, initial-scale=1">\n',
        ),
        (
            '    <link rel="alternate" type="application/atom+xml" title="Regressions"'
            ' href="regressions.xml"/>\n',
            '    <link href="dashboard.css" rel="stylesheet" type="text/css"/>\n',
        ),
        ('src="asv.js">', 'src="asv.js"></script>\n    <script src="dashboard.js">'),
    ),
}


def main() -> None:
    """Finish the dashboard of this repository."""
    try:
        finish(BENCHMARKS)
    except ValueError as error:
        sys.exit(str(error))


def finish(folder: Path) -> None:
    """Finish the dashboard in a folder of asv benchmarks.

    Raises
    ------
    ValueError
        If asv has not just published it.
    """
    html = folder / "html"
    if not (html / INDEX).exists():
        raise ValueError(f"{html / INDEX} does not exist: run `asv publish` first, each time")
    report = judge_all(folder)
    change_lines(html)
    index = read(html / INDEX)
    write(html / "regressions.json", {"regressions": as_asv(report, index)})
    (html / "regressions.xml").unlink(missing_ok=True)
    hidden = hide_unmeasured(html, index, report)
    choose_scales(html, index)
    index["files"] = [file.relative_to(html).as_posix() for file in sorted(html.rglob("*.json"))]
    write(html / INDEX, index)
    for name in ("dashboard.js", "dashboard.css"):
        shutil.copyfile(TOOLS / name, html / name)
    turn_into_scripts(html)
    if hidden:
        print(f"without a result, so not shown: {', '.join(hidden)}")
    print(f"open {html / 'index.html'}: {len(report.regressions)} series have become worse")


def read(file: Path) -> Any:
    """Read a JSON file."""
    return json.loads(file.read_text(encoding="utf-8"))


def write(file: Path, content: Any) -> None:
    """Write a JSON file without spaces."""
    file.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")


def change_lines(html: Path) -> None:
    """Change asv's files, or none of them if one has other lines than expected."""
    changed = {}
    for name, changes in CHANGED_LINES.items():
        text = (html / name).read_text(encoding="utf-8")
        for old, new in changes:
            if old not in text:
                raise ValueError(f"asv's {name} has no {old!r}: change CHANGED_LINES")
            text = text.replace(old, new)
        changed[name] = text
    for name, text in changed.items():
        (html / name).write_text(text, encoding="utf-8")


def hide_unmeasured(html: Path, index: dict[str, Any], report: Report) -> list[str]:
    """Drop benchmarks and rows of the list that were always skipped; return the benchmarks."""
    shown = set()
    for measured in report.measured:
        rows_kept = not_skipped(measured, report.benchmarks)
        file = html / graph_file(state_of(measured.environment, index), "summary")
        rows = [row for row in read(file) if (row["name"], row["idx"]) in rows_kept]
        shown |= {row["name"] for row in rows}
        write(file, rows)
    hidden = sorted(set(index["benchmarks"]) - shown)
    for name in hidden:
        del index["benchmarks"][name]
        for file in (html / "graphs").rglob(f"{name}.json"):
            file.unlink()
    return hidden


def not_skipped(
    measured: Measured, benchmarks: dict[str, dict[str, Any]]
) -> set[tuple[str, int | None]]:
    """Return what has a value or has failed: benchmarks, and the index of their parameters."""
    return {
        (name, index if benchmark["params"] else None)
        for name, benchmark in benchmarks.items()
        for _, values in measured.values(benchmark)
        for index, value in enumerate(values)
        if value is None or not math.isnan(value)
    }


def choose_scales(html: Path, index: dict[str, Any]) -> None:
    """Mark the benchmarks whose values, for one commit, span a decade."""
    for name, benchmark in index["benchmarks"].items():
        graphs = [html / graph_file(state, name) for state in index["graph_param_list"]]
        points = itertools.chain.from_iterable(read(file) for file in graphs if file.exists())
        benchmark["log_scale"] = any(spans_a_decade(values) for _, values in points)


def spans_a_decade(values: list[float | None] | float | None) -> bool:
    """Whether the values of all combinations of parameters call for a logarithmic scale."""
    if not isinstance(values, list):
        return False
    measured = [value for value in values if value is not None]
    return bool(measured) and 0 < DECADE * min(measured) <= max(measured)


def state_of(environment: dict[str, str], index: dict[str, Any]) -> dict[str, str | None]:
    """Return what asv's page calls a machine and set of versions: it adds the branch."""
    states = index["graph_param_list"]
    return next(state for state in states if environment.items() <= state.items())


def graph_file(state: dict[str, str | None], name: str) -> str:
    """Where asv writes a benchmark's curve for one machine and set of versions."""
    from asv.graph import Graph

    return f"{Path(Graph.get_file_path(state, name)).as_posix()}.json"


def as_asv(report: Report, index: dict[str, Any]) -> list[list[Any]]:
    """Write regressions as asv's page reads them.

    Each is a name, the file of its curve, the parameters of its state that have several values, the
    index of its own, the last value, the best one, and for each worsening the revisions before and
    after and the values. The revision before is left out if it is the commit before.
    """
    revisions = {commit: int(number) for number, commit in index["revision_to_hash"].items()}
    place = {commit: i for i, commit in enumerate(report.commits)}
    several = {name for name, values in index["params"].items() if len(values) > 1}
    rows = []
    for series, worsenings in report.regressions:
        state = state_of(series.environment, index)
        jumps = []
        for position, before, after in worsenings:
            old, new = series.commits[position - 1], series.commits[position]
            next_to_it = place[new] - place[old] == 1
            jumps.append([None if next_to_it else revisions[old], revisions[new], before, after])
        path = graph_file(state, series.benchmark)
        shown_state = {key: value for key, value in state.items() if key in several}
        best = (max if series.more_is_better else min)(series.values)
        last = series.values[-1]
        rows.append([series.name, path, shown_state, series.index, last, best, jumps])
    return rows


def turn_into_scripts(html: Path) -> None:
    """Replace each JSON file by a script that hands its content to the tag that loads it."""
    for file in list(html.rglob("*.json")):
        content = file.read_text(encoding="utf-8")
        script = f"document.currentScript.json = {content};\n"
        file.with_name(f"{file.name}.js").write_text(script, encoding="utf-8")
        file.unlink()


if __name__ == "__main__":
    main()
