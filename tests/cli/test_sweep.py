"""``eplb-np sweep``: what to buy, a file that grows, and going on after Ctrl-C and kills."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from support import PACKAGE, TIMEOUT
from terminals import CTRL_C, Terminal

from eplb_np.sweeps import grid, sweep

LOAD = np.random.default_rng(8).integers(1, 100, (4, 12)).astype(float)
STEPS = np.stack([LOAD, LOAD[:, ::-1], 2 * LOAD, LOAD])
MANY = ",".join(map(str, range(2000)))


@pytest.fixture(autouse=True)
def files_of_loads(tmp_path, monkeypatch):
    """Loads in the current folder."""
    np.save(tmp_path / "loads.npy", LOAD)
    np.save(tmp_path / "steps.npy", STEPS)
    monkeypatch.chdir(tmp_path)


def cases_in(path):
    """The cases in a file of results, whose last line may have no end."""
    whole = path.read_bytes().rpartition(b"\n")[0]
    rows = [json.loads(line) for line in whole.splitlines()[1:]]
    return [(row["num_gpus"], row["num_replicas"], row["policy"]) for row in rows]


OPTIONS = [
    "--gpus", "4,8", "--redundant", "0,4", "--nodes", "1,2", "--groups", "4",
    "--policies", "deepseek,refined",
]  # fmt: skip


def test_results_are_those_of_the_library(run):
    code, out, err = run(
        "sweep", "steps.npy", *OPTIONS, "--first-window", "2", "--windows", "1",
        "--expert-bytes", "1000", "--json",
    )  # fmt: skip
    assert (code, err) == (0, "")
    found = json.loads(out)
    expected = sweep(
        STEPS,
        grid(
            12, [4, 8], num_redundant=[0, 4], num_nodes=[1, 2], num_groups=[4],
            policies=["deepseek", "refined"],
        ),
        first_window=2, num_windows=1, expert_bytes=1000,
    )  # fmt: skip
    assert found["rows"] == [asdict(row) for row in expected.rows]
    assert found["left_out"] == list(expected.left_out)
    assert found["buy"] == [asdict(expected.knee(num_gpus=gpus)) for gpus in (4, 8)]
    assert (found["complete"], found["num_windows"]) == (True, 4)


def test_a_table_and_what_to_buy(run):
    code, out, err = run("sweep", "steps.npy", *OPTIONS)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert sum(line.startswith(("4 ", "8 ")) for line in lines) == 14
    assert "left out: 12 slots on 8 GPUs, 4 groups, deepseek: " in out
    expected = sweep(
        STEPS,
        grid(12, [4], num_redundant=[0, 4], num_nodes=[1, 2], num_groups=[4],
             policies=["deepseek", "refined"]),
    ).knee()  # fmt: skip
    assert re.search(
        rf"^on 4 GPUs buy +{expected.slots_per_gpu} slots per GPU \({expected.case}\): "
        rf"{expected.judged:.4f} balanced on the next windows",
        out,
        re.MULTILINE,
    )


def test_without_sizes_the_fewest_slots_and_more_are_tried(run):
    code, out, _ = run("sweep", "loads.npy", "--gpus", "5", "--json")
    assert code == 0
    assert [row["slots_per_gpu"] for row in json.loads(out)["rows"]] == [3, 4, 5, 6, 7, 8]


def test_several_processes_give_the_same(run):
    args = ["sweep", "steps.npy", *OPTIONS, "--json"]
    assert run(*args, "--jobs", "2") == run(*args)


def test_a_cluster_gives_the_same(run):
    distributed = pytest.importorskip("distributed")
    args = ["sweep", "steps.npy", *OPTIONS, "--json"]
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1"
    ) as cluster:
        assert run(*args, "--dask", cluster.scheduler_address) == run(*args)


def test_more_sizes_are_added_to_the_same_file(run):
    args = ["sweep", "loads.npy", "-o", "s.jsonl", "--gpus", "4", "--redundant"]
    _, out, _ = run(*args, "0,4")
    assert "s.jsonl: 2 cases\n" in out
    _, out, _ = run(*args, "0,4,8")
    assert "s.jsonl: 3 cases, of which 2 were there before" in out
    assert [case[:2] for case in cases_in(Path("s.jsonl"))] == [(4, 12), (4, 16), (4, 20)]


BAD = {
    "sizes": (["--gpus", "4,x"], ["--gpus", "4,x", "numbers with commas"]),
    "nothing fits": (["--gpus", "6", "--nodes", "4"], ["loads.npy", "no combination", "--gpus=6"]),
    "both": (["--redundant", "0", "--slots", "4"], ["--redundant", "--slots"]),
    "policy": (["--policies", "best"], ["'best' is unknown"]),
    "no file": (["-o", "-"], ["-o -", "a file"]),
    "the input": (["-o", "loads.npy"], ["loads.npy", "would be lost"]),
    "another file": (["-o", "steps.npy"], ["steps.npy", "no results of a sweep"]),
    "address": (["--dask", "http://nobody"], ["no Dask scheduler answers at 'http://nobody'"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line(kind, run):
    if kind == "address":
        pytest.importorskip("distributed")
    args, parts = BAD[kind]
    code, out, err = run("sweep", "loads.npy", *args)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"eplb-np: .*\n", err)
    for part in parts:
        assert part in err


def test_a_file_that_cannot_be_written_is_exit_code_1(run, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    code, out, err = run("sweep", "loads.npy", "--gpus", "4", "-o", "s.jsonl")
    assert (code, out, err) == (1, "", "eplb-np: s.jsonl: No space left on device\n")


def test_ctrl_c_says_how_to_go_on(tmp_path):
    np.save(tmp_path / "loads.npy", LOAD)
    file = tmp_path / "s.jsonl"
    args = ["sweep", "loads.npy", "--gpus", "4", "--policies", "deepseek", "-o", "s.jsonl"]
    args += ["--jobs", "2", "--redundant"]
    many = ",".join(str(4 * more) for more in range(2000))
    terminal = Terminal(*args, many, cwd=tmp_path)
    terminal.wait_for(r"sweeping.* [1-9]\d*/2000 .*\d:\d\d:\d\d")  # a bar, and the time left
    terminal.type(CTRL_C)
    code, _ = terminal.finish()
    shown = terminal.plain
    done = cases_in(file)
    assert code == 130
    assert f"stopped: {len(done)} of 2000 cases are done; the same command goes on" in shown
    assert "on 4 GPUs buy" in shown
    assert "Traceback" not in shown
    assert 0 < len(done) < 2000
    check_that_it_goes_on(args, done, file)


def test_after_a_kill_it_goes_on(tmp_path):
    np.save(tmp_path / "loads.npy", LOAD)
    file = tmp_path / "s.jsonl"
    args = ["sweep", "loads.npy", "--gpus", "4", "--policies", "deepseek", "-o", "s.jsonl"]
    args += ["--jobs", "2", "--redundant"]
    many = ",".join(str(4 * more) for more in range(2000))
    process = start(*args, many, cwd=tmp_path)
    wait_until(lambda: file.exists() and file.read_bytes().count(b"\n") > 5)
    children = children_of(process.pid)
    assert len(children) >= 2
    process.kill()
    process.communicate(timeout=TIMEOUT)
    wait_until(lambda: not any(map(is_running, children)))
    done = cases_in(file)
    with file.open("ab") as torn:
        torn.write(b'{"num_gpus": 4, "num_re')
    check_that_it_goes_on(args, done, file)


def check_that_it_goes_on(args, done, file):
    """With five cases more than are done: these are done, and nothing twice."""
    wanted = sorted({replicas for _, replicas, _ in done})
    wanted += [wanted[-1] + 4 * more for more in range(1, 6)]
    sizes = ",".join(str(replicas - 12) for replicas in wanted)
    process = start(*args, sizes, cwd=file.parent)
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert f"{len(wanted)} cases, of which {len(done)} were there before" in out
    after = cases_in(file)
    assert after[: len(done)] == done
    assert sorted(replicas for _, replicas, _ in after) == wanted


def start(*args, cwd):
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "eplb_np", *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(happened):
    end = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid):
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_ctrl_c_without_a_file(tmp_path):
    np.save(tmp_path / "loads.npy", LOAD)
    args = ["sweep", "loads.npy", "--gpus", "4", "--jobs", "1", "--redundant", MANY]
    terminal = Terminal(*args, cwd=tmp_path)
    terminal.wait_for(r"sweeping.* [1-9]\d*/2000 ")
    terminal.process.send_signal(signal.SIGINT)
    code, _ = terminal.finish()
    shown = terminal.plain
    assert code == 130
    assert re.search(
        r"stopped: \d+ of 2000 cases are done; run the same command again with -o", shown
    )
