"""``eplb-np formats``: which files are read and written, and how each comes about."""

from __future__ import annotations

import click

from eplb_np.cli.options import epilog, json_option
from eplb_np.cli.output import print_json, print_rows, print_table
from eplb_np.io import FORMATS, Format


def _complete(context: click.Context, argument: click.Parameter, typed: str) -> list[str]:
    return [name for name in FORMATS if name.startswith(typed)]


def _known(context: click.Context, argument: click.Parameter, name: str | None) -> str | None:
    if name is not None and name not in FORMATS:
        raise click.BadParameter(f"{name!r} is unknown: give one of {', '.join(FORMATS)}")
    return name


@click.command(
    "formats",
    short_help="List formats of files, and how to record them.",
    epilog=epilog("eplb-np formats", "eplb-np formats sglang", "eplb-np formats --json"),
)
@click.argument("name", required=False, shell_complete=_complete, callback=_known)
@json_option
def formats(name: str | None, as_json: bool) -> None:
    """List the formats of loads and plans; of one NAME, say what it is and how to record it.

    A file's format is told by its content. --format names it where two fit, and --to names the
    one to write.
    """
    chosen = FORMATS if name is None else {name: FORMATS[name]}
    if as_json:
        print_json([{"name": known, **_facts(row)} for known, row in chosen.items()])
    elif name is None:
        header = ("format", "loads", "plans", "of")
        lines = (
            (known, *(able or "-" for able in _abilities(row)), row.title)
            for known, row in FORMATS.items()
        )
        print_table(header, lines, left=header)
    else:
        loads, plans = _abilities(FORMATS[name])
        print_rows({
            "format": name,
            "of": FORMATS[name].title,
            "loads": loads or "no",
            "plans": plans or "no",
            "holds": FORMATS[name].holds,
            "to record": FORMATS[name].recorded_by,
        })  # fmt: skip


def _abilities(row: Format) -> tuple[str, str]:
    """Say whether loads and plans are read and written."""
    able = ((row.reads_loads, row.writes_loads), (row.reads_plans, row.writes_plans))
    loads, plans = (", ".join(["read"] * reads + ["written"] * writes) for reads, writes in able)
    return loads, plans


def _facts(row: Format) -> dict[str, object]:
    return {name: value for name, value in row._asdict().items() if name != "module"}
