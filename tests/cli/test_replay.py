"""``eplb-np replay``: the library's replays, a bar, and Ctrl-C that keeps what is done."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from support import run_python
from terminals import CTRL_C, Terminal

from eplb_np import Topology
from eplb_np.comparison import windows_at_most
from eplb_np.replay import planner_named, replay

LOAD = np.random.default_rng(8).integers(1, 100, (4, 12)).astype(float)
STEPS = np.stack([LOAD, LOAD[:, ::-1], 2 * LOAD, LOAD, LOAD])
TOPOLOGY = Topology(12, 16, 4)
NAMES = ["once", "replan-deepseek", "mend"]
OPTIONS = ["--gpus", "4", "--planners", ",".join(NAMES)]


@pytest.fixture(autouse=True)
def files_of_loads(tmp_path, monkeypatch):
    """Loads in the current folder."""
    np.save(tmp_path / "steps.npy", STEPS)
    monkeypatch.chdir(tmp_path)


def expected():
    return {name: replay(STEPS, planner_named(name, TOPOLOGY, 2), first_window=2) for name in NAMES}


def test_every_figure_is_that_of_the_library(run):
    options = [*OPTIONS, "--first-window", "2", "--windows", "2"]
    code, out, err = run("replay", "steps.npy", *options, "--json", "-o", "r.json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert json.loads(Path("r.json").read_text()) == found
    assert (found["complete"], found["num_windows"]) == (True, 3)
    assert found["at_most"] == windows_at_most(STEPS[2:], TOPOLOGY)
    assert list(found["planners"]) == NAMES
    for name, alone in expected().items():
        row = found["planners"][name]
        assert row["balancedness"] == alone.balancedness
        assert row["moved_share"] == alone.moved_share
        assert row["windows"]["window"] == [2, 3, 4]
        assert row["windows"]["moved"] == alone.moved.tolist()
        assert row["windows"]["balancedness"] == alone.window_balancedness.tolist()


def test_a_table_and_a_file_of_comma_separated_values(run):
    options = [*OPTIONS, "--first-window", "2", "--windows", "2"]
    code, out, _ = run("replay", "steps.npy", *options, "-o", "r.csv")
    assert code == 0
    assert "r.csv" in out
    with Path("r.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name, alone in expected().items():
        assert re.search(rf"^{name} +{alone.balancedness:.4f} ", out, re.MULTILINE)
        lines = [row for row in rows if row["planner"] == name]
        assert [int(row["window"]) for row in lines] == [2, 3, 4]
        assert [float(row["longest_time"]) for row in lines] == alone.longest_time.tolist()
    assert len(rows) == 9


def test_results_on_standard_output_are_all_that_is_there(run):
    code, out, err = run("replay", "steps.npy", *OPTIONS, "-o", "-")
    assert code == 0
    assert json.loads(out)["num_windows"] == 4
    assert "balancedness" in err


BAD = {
    "planner": (["steps.npy", "--planners", "best"], ["'best' is unknown", "replan-refined"]),
    "no planner": (["steps.npy", "--planners", "once,,mend"], ["names with commas"]),
    "one step": (["one.npy"], ["one.npy", "one step with load", "two or more"]),
    "order": (["steps.json"], ["steps.json", "order of its steps", "--in-order"]),
    "first window": (["steps.npy", "--first-window", "5"], ["steps.npy", "5 window(s)"]),
    "suffix": (["steps.npy", "-o", "r.txt"], ["r.txt", ".json, .csv"]),
    "folder": (["steps.npy", "-o", "absent/r.csv"], ["absent", "no such folder"]),
    "the input": (["steps.json", "-o", "steps.json"], ["would be lost"]),
    "no loads": ([], ["LOADS"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line(kind, run):
    args, parts = BAD[kind]
    np.save("one.npy", LOAD)
    Path("steps.json").write_text(json.dumps({"logical_count": STEPS.tolist()}))
    code, out, err = run("replay", *args)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"eplb-np: .*\n", err)
    for part in parts:
        assert part in err


def test_steps_that_somebody_knows_to_be_in_order(run):
    Path("steps.json").write_text(json.dumps({"logical_count": STEPS.tolist()}))
    code, _, _ = run("replay", "steps.json", "--in-order", *OPTIONS)
    assert code == 0


@pytest.fixture
def long_trace(tmp_path):
    """More windows than anybody waits for."""
    np.save(tmp_path / "long.npy", np.random.default_rng(1).random((100_000, 1, 4)) + 0.1)
    return tmp_path


LONG = ["replay", "long.npy", "--gpus", "2", "--planners", "in-order,replan-deepseek"]


def test_ctrl_c_keeps_what_is_done(long_trace):
    terminal = Terminal(*LONG, "-o", "r.json", cwd=long_trace)
    terminal.wait_for(r"replaying.* [1-9]\d*/199998 .*\d:\d\d:\d\d")  # a bar, and the time left
    terminal.type(CTRL_C)
    code, _ = terminal.finish()
    shown = terminal.plain
    done = json.loads((long_trace / "r.json").read_text())
    assert code == 130
    assert f"stopped: {done['num_windows']} of 99999 windows are done, and kept" in shown
    assert "Traceback" not in shown
    assert re.search(r"replan-deepseek +0\.\d{4}", shown)
    assert done["complete"] is False
    assert 0 < done["num_windows"] < 99_999
    for row in done["planners"].values():
        assert row["windows"]["window"] == list(range(1, 1 + done["num_windows"]))


@pytest.mark.parametrize("term", ["dumb", "xterm"])
def test_bars_are_for_terminals_that_can_show_them(term, tmp_path):
    np.save(tmp_path / "steps.npy", STEPS)
    terminal = Terminal("replay", "steps.npy", *OPTIONS, cwd=tmp_path, term=term, columns=60)
    code, _ = terminal.finish()
    assert code == 0
    assert ("replaying" in terminal.text) == (term == "xterm")


def test_what_is_piped_has_no_bar(tmp_path):
    np.save(tmp_path / "steps.npy", STEPS)
    result = run_python("-m", "eplb_np", "replay", "steps.npy", *OPTIONS, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
