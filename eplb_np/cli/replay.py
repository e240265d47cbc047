"""``eplb-np replay``: a recorded trace, through several ways to plan."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.shell_completion import CompletionItem
from numpy.typing import NDArray

from eplb_np._files.reading import suffix_of
from eplb_np._files.targets import check_not_read_from, target_of, write_to
from eplb_np.cli.described import (
    check_history,
    names_of,
    said_deployment,
    said_loads,
    windows_options,
)
from eplb_np.cli.errors import NOT_WRITTEN, one_line
from eplb_np.cli.options import (
    Loads,
    Sizes,
    epilog,
    json_option,
    loads_options,
    output_option,
    sizes_options,
    topology_from,
)
from eplb_np.cli.output import print_json, print_rows, print_table, progress
from eplb_np.cli.streams import is_dash, stand_in, write_through, written_name
from eplb_np.comparison import load_planners, windows_at_most
from eplb_np.planners import planner_named, planner_names
from eplb_np.replay import Replay, ReplayedWindow, replay_windows
from eplb_np.topology import Topology, stored_sizes

SUFFIXES = (".json", ".csv")
DEFAULT = "in-order,once,replan-deepseek,replan-refined,mend"


def _complete(context: click.Context, option: click.Parameter, typed: str) -> list[CompletionItem]:
    """Complete the last name of a list."""
    before, comma, last = typed.rpartition(",")
    return [
        CompletionItem(f"{before}{comma}{name}")
        for name in planner_names()
        if name.startswith(last)
    ]


@click.command(
    "replay",
    short_help="Replay a history through several ways to plan.",
    epilog=epilog(
        "eplb-np replay windows.npy --gpus 32",
        "eplb-np replay windows.npy --gpus 32 --planners once,mend --first-window 8",
        "eplb-np replay dumps/ --gpus 32 --in-order -o results.csv",
    ),
)
@loads_options()
@sizes_options
@click.option(
    "--planners",
    default=DEFAULT,
    show_default=True,
    metavar="NAMES",
    shell_complete=_complete,
    help=f"Some of {', '.join(planner_names())}.",
)
@windows_options
@output_option("File for the figures of each window, .json or .csv.")
@json_option
def replay_loads(
    loads: Loads,
    sizes: Sizes,
    planners: str,
    first_window: int,
    num_windows: int,
    output: Path | None,
    as_json: bool,
) -> None:
    """Replay the steps of LOADS through several ways to plan, and judge each on windows to come.

    Before each window, every planner plans from the windows before it. Then it is judged on the
    window itself. in-order keeps the plan that serving stacks start with, once plans once, replan-
    plans from scratch before every window, and mend changes the plan in use by few moves.

    Ctrl-C keeps what is done: the windows so far are printed and written.
    """
    names = names_of(planners, "--planners")
    path = loads.path or Path()
    with one_line():
        if output is not None:
            suffix_of(stand_in(output, ".json"), SUFFIXES)
            if not is_dash(output):
                check_not_read_from(output, path)
                target_of(output)
    recorded = loads.read()
    with one_line():
        check_history(path, recorded)
    with one_line(about=loads.path):
        topology = topology_from(recorded.load.shape[1], sizes)
        history = recorded.windows
        replays = {
            name: replay_windows(
                history, planner_named(name, topology, num_windows), first_window=first_window
            )
            for name in names
        }
        done: dict[str, list[ReplayedWindow]] = {name: [] for name in names}
        total = len(history) - first_window
        stopped: BaseException | None = None
        try:
            with progress("replaying", total * len(names)) as step:
                load_planners(names, topology, history.shape[1])
                # Window by window: where it is stopped, all have come equally far.
                for _ in range(total):
                    rows = []
                    for windows in replays.values():
                        rows.append(next(windows))
                        step(1)
                    for name, row in zip(names, rows, strict=True):
                        done[name].append(row)
        except BaseException as error:
            if isinstance(error, Exception) or not done[names[0]]:
                raise
            stopped = error
    results = Results(
        {name: Replay.of_windows(rows) for name, rows in done.items()}, topology, history, total
    )
    about = {
        "loads": loads.name,
        "format": recorded.format,
        "topology": stored_sizes(topology),
        **results.as_json(),
        "notes": list(recorded.notes),
    }
    if output is not None:
        with one_line(NOT_WRITTEN, about=output):
            write_results(output, results, about)
    if as_json:
        print_json(about)
    else:
        said = {
            "loads": said_loads(loads.name, recorded),
            "deployment": said_deployment(topology),
            "windows": f"{results.num_windows} of {total}, from window {first_window} on",
        }
        if why := sizes.said(topology):
            said["slots"] = why
        if output is not None:
            said["written to"] = written_name(output)
        to = sys.stderr if is_dash(output) else sys.stdout
        print_rows(said, recorded.notes, to)
        to.write("\n")
        print_table(*results.as_table(), to=to)
    if stopped is not None:
        sys.stdout.flush()
        click.echo(
            f"stopped: {results.num_windows} of {total} windows are done, and kept", err=True
        )
        raise stopped


class Results:
    """Replays of the same windows, by the names of their planners."""

    def __init__(
        self,
        replays: dict[str, Replay],
        topology: Topology,
        history: NDArray[Any],
        num_wanted: int,
    ) -> None:
        self.replays = replays
        one = next(iter(replays.values()))
        self.num_windows: int = len(one.moved)
        self._complete = self.num_windows == num_wanted
        judged = history[one.first_window : one.first_window + self.num_windows]
        self._at_most = windows_at_most(judged, topology)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "complete": self._complete,
            "num_windows": self.num_windows,
            "at_most": self._at_most,
            "planners": {
                name: {
                    "balancedness": replay.balancedness,
                    "moved_share": replay.moved_share,
                    "milliseconds": replay.milliseconds,
                    "windows": {
                        column: values.tolist() for column, values in replay.columns.items()
                    },
                }
                for name, replay in self.replays.items()
            },
        }

    def as_csv(self) -> str:
        """Return a line for each planner and window."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for name, replay in self.replays.items():
            if text.tell() == 0:
                writer.writerow(["planner", *replay.columns])
            columns = [values.tolist() for values in replay.columns.values()]
            writer.writerows([name, *row] for row in zip(*columns, strict=True))
        return text.getvalue()

    def as_table(self) -> tuple[Sequence[str], list[list[str]]]:
        """Return header and lines of the table for people."""
        lines = [
            [
                name,
                f"{replay.balancedness:.4f}",
                f"{replay.window_balancedness.min():.4f}",
                f"{replay.first_window + int(np.argmin(replay.window_balancedness))}",
                f"{replay.moved_share:.2%}",
                f"{replay.milliseconds:.2f} ms",
            ]
            for name, replay in self.replays.items()
        ]
        lines.append(["at most, any plan", f"{self._at_most:.4f}", "", "", "", ""])
        names = ("planner", "balancedness", "lowest", "in window", "moved per replan")
        return (*names, "time per replan"), lines


def write_results(output: Path, results: Results, about: dict[str, Any]) -> None:
    """Write the figures of each window to a file, or as JSON to standard output."""
    as_csv = output.suffix.lower() == ".csv"
    content = results.as_csv() if as_csv else json.dumps(about) + "\n"

    def write(path: Path) -> None:
        write_to(path, lambda file: file.write(content.encode()))

    write_through(output, ".json", write)
