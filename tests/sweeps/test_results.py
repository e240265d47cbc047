"""The file of results: nothing lost, nothing done twice, nothing of another sweep taken over."""

import json
import os

import numpy as np
import pytest
from support import fewer, refusal, refused

from eplb_np.sweeps import grid, processes, sweep
from eplb_np.sweeps.measure import as_judging
from eplb_np.sweeps.results import LARGEST_FILE, ResultsFile
from eplb_np.sweeps.sweeping import ask, running

LOAD = np.arange(1.0, 17.0).reshape(2, 8)
CASES = grid(8, [2, 4], num_redundant=[0, 4], policies=["deepseek"]).cases


@pytest.fixture
def path(tmp_path):
    """A file with the results of all cases."""
    path = tmp_path / "sweep.jsonl"
    sweep(LOAD, CASES, path=path)
    return path


@pytest.fixture
def measured(monkeypatch):
    """The cases that are measured from now on."""
    cases = []
    measure = processes.measure

    def note(case, *others):
        cases.append(case)
        return measure(case, *others)

    monkeypatch.setattr(processes, "measure", note)
    return cases


def test_a_line_for_each_case(path):
    header, *rows = map(json.loads, path.read_text().splitlines())
    assert header["format"] == "eplb_np.sweep"
    assert [(row["num_gpus"], row["num_replicas"]) for row in rows] == [case[:2] for case in CASES]


def test_what_is_done_is_not_done_again(path, measured):
    before = path.read_bytes()
    assert sweep(LOAD, CASES, path=path).rows == sweep(LOAD, CASES).rows
    assert measured == list(CASES)  # of the sweep without a file
    assert path.read_bytes() == before


def test_more_cases_are_added_to_the_same_file(path, measured):
    more = grid(8, [4, 8], num_redundant=[0, 8], policies=["deepseek"]).cases
    found = sweep(LOAD, more, path=path)
    assert [row.case for row in found.rows] == list(more)
    assert measured == [case for case in more if case not in CASES]
    assert len(path.read_text().splitlines()) == 1 + len({*more, *CASES})


def test_a_line_cut_anywhere_is_done_again(path, measured):
    """As a killed process leaves it; also while the first line was written."""
    whole = path.read_bytes()
    rows = sweep(LOAD, CASES, path=path).rows
    lines = whole.splitlines(keepends=True)
    for kept in (0, 1, 2, len(CASES)):
        start = sum(map(len, lines[:kept]))
        for cut in range(0, len(lines[kept]), fewer(40, 80)):
            path.write_bytes(whole[: start + cut])
            measured.clear()
            assert sweep(LOAD, CASES, path=path).rows == rows
            assert measured == list(CASES[max(kept - 1, 0) :])
            assert path.read_bytes() == whole


def test_results_of_another_sweep_are_refused(path):
    before = path.read_bytes()
    with refused(str(path), "other loads", "another file"):
        sweep(LOAD + 1, CASES, path=path)
    with refused(str(path), "num_layers=2"):
        sweep(LOAD[:1], CASES, path=path)
    with refused(str(path), "expert_bytes=None"):
        sweep(LOAD, CASES, path=path, expert_bytes=5)
    with refused(str(path), "num_history_windows=1"):
        sweep(np.stack([LOAD, LOAD]), CASES, path=path)
    assert path.read_bytes() == before


def test_results_of_another_version_are_refused(path, monkeypatch):
    monkeypatch.setattr("eplb_np.__version__", "9.9")
    with refused(str(path), "version="):
        sweep(LOAD, CASES, path=path)


def test_two_sweeps_cannot_write_to_one_file(path):
    asked = ask(LOAD, CASES, as_judging(1, 8, None))
    with running(asked, path), refused(str(path), "another sweep is writing"):
        sweep(LOAD, CASES, path=path)
    sweep(LOAD, CASES, path=path)


NOT_OURS = {
    "text": (b"loads\n", "no results of a sweep"),
    "JSON": (b'{"logical_count": [[1]]}', "no results of a sweep"),
    "zeros": (bytes(100), "no results of a sweep"),
}


@pytest.mark.parametrize("kind", NOT_OURS)
def test_other_files_are_left_alone(kind, tmp_path):
    content, said = NOT_OURS[kind]
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with refused(str(path), said):
        sweep(LOAD, CASES, path=path)
    assert path.read_bytes() == content


BAD_LINES = {
    "no JSON": ("{", "damaged"),
    "no object": ("[1]", "damaged"),
    "another object": ('{"num_gpus": 4}', "no result"),
    "nested": ("[" * 3000, "damaged"),
    "long": ('{"a": "' + "x" * 5000 + '"}', "too long"),
}


@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_damaged_line_is_named(kind, path):
    lines = path.read_text().splitlines()
    lines[2], said = BAD_LINES[kind]
    path.write_text("\n".join(lines) + "\n")
    with refused(str(path), "line 3", said):
        sweep(LOAD, CASES, path=path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("balancedness", "NaN"), ("balancedness", "1"), ("num_gpus", "-4"), ("num_gpus", "true"),
     ("policy", "null"), ("moved_share", '"0"')],
)  # fmt: skip
def test_a_wrong_value_is_named(field, value, path):
    lines = path.read_text().splitlines()
    row = json.loads(lines[1])
    row[field] = "VALUE"
    lines[1] = json.dumps(row).replace('"VALUE"', value)
    path.write_text("\n".join(lines) + "\n")
    with refused(str(path), "line 2"):
        sweep(LOAD, CASES, path=path)


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with refused("fifo", "a FIFO"):
        sweep(LOAD, CASES, path=tmp_path / "fifo")
    with refused("a directory"):
        sweep(LOAD, CASES, path=tmp_path)
    with pytest.raises(FileNotFoundError):
        sweep(LOAD, CASES, path=tmp_path / "absent" / "x.jsonl")


def test_a_huge_file_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.jsonl"
    with path.open("wb") as file:
        file.write(b'{"format": "eplb_np.sweep"}\n')
        file.truncate(LARGEST_FILE + 1)
    imports = "import numpy as np\nfrom eplb_np.sweeps.results import ResultsFile"
    assert "MiB" in refusal("(lambda path: ResultsFile(path, {}))", path, imports)


def test_a_full_disk_names_the_file(path, monkeypatch):
    rows = sweep(LOAD, CASES, path=path).rows

    def fail(*_):
        raise OSError(28, "No space left on device")

    with ResultsFile(path, json.loads(path.read_text().splitlines()[0])) as file:
        monkeypatch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match=r"No space left on device: .*sweep\.jsonl"):
            file.append(rows[0])
