"""``eplb-np compare``: what the library finds, as a table and as JSON."""

import json
import re

import numpy as np
import pytest

from eplb_np import Topology, make_plan
from eplb_np.comparison import compare
from eplb_np.policies import POLICIES

LOAD = np.random.default_rng(8).integers(1, 100, (4, 12)).astype(float)
LOAD[0] = 0
STEPS = np.stack([LOAD, LOAD[:, ::-1], 2 * LOAD, LOAD])
TOPOLOGY = Topology(12, 16, 4)


@pytest.fixture(autouse=True)
def files_of_loads(tmp_path, monkeypatch):
    """Loads in the current folder."""
    np.save(tmp_path / "loads.npy", LOAD)
    np.save(tmp_path / "steps.npy", STEPS)
    monkeypatch.chdir(tmp_path)


def test_a_table_of_all_policies(run):
    code, out, err = run("compare", "loads.npy", "--gpus", "4")
    assert (code, err) == (0, "")
    compared = compare(LOAD[1:], TOPOLOGY)
    rows = dict(re.findall(r"^(\S+)\s+([\d.]+)\s+\d+ ", out, re.MULTILINE))
    assert rows == {
        row.name: f"{row.summary.balancedness:.4f}"
        for row in compared.plans
        if row.name != "in-order"
    }
    assert re.search(rf"^at most, any plan +{compared.at_most:.4f}$", out, re.MULTILINE)
    assert "16 follow from 12 experts on 4 GPUs" in out
    assert "moved" not in out
    assert "windows" not in out
    assert "\x1b" not in out


def test_moves_from_the_plan_in_use(run):
    current = make_plan(LOAD[1:, ::-1], TOPOLOGY, policy="refined", moe_layer_ids=[1, 2, 3])
    current.save("plan.json")
    code, out, err = run("compare", "loads.npy", "--current", "plan.json", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    compared = compare(LOAD[1:], current=current)
    assert {row["name"]: row["moved"] for row in found["plans"]} == {
        row.name: row.moved for row in compared.plans
    }
    assert found["current"] == "plan.json"
    code, out, _ = run("compare", "loads.npy", "--current", "plan.json")
    assert re.search(r"^plan +balancedness +duplicates +moved +time to plan$", out, re.MULTILINE)


def test_a_history_is_judged_on_windows_to_come(run):
    options = ["--gpus", "4", "--first-window", "2", "--windows", "1"]
    code, out, err = run("compare", "steps.npy", *options, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    compared = compare(STEPS[:, 1:], TOPOLOGY, first_window=2, num_windows=1)
    assert [(row["name"], row["balancedness"], row["moved_share"]) for row in found["replays"]] == [
        (row.name, row.replay.balancedness, row.replay.moved_share) for row in compared.replays
    ]
    assert found["replays_at_most"] == compared.replays_at_most
    assert found["topology"]["num_replicas"] == 16
    _, out, _ = run("compare", "steps.npy", *options)
    assert "On windows not planned from, 2 and later:" in out
    assert all(f"\nreplan-{policy} " in out for policy in POLICIES)


def test_policies_that_cannot_plan_are_named(run):
    code, out, _ = run("compare", "loads.npy", "--gpus", "4", "--replicas", "14")
    assert code == 0
    assert "left out: hybrid: --replicas=14" in out or "left out: hybrid: num_replicas=14" in out


BAD = {
    "absent": (["absent.npy"], ["absent.npy", "No such file"]),
    "sizes": (["loads.npy", "--gpus", "5", "--nodes", "2"], ["--gpus=5", "--nodes=2"]),
    "too few windows": (["steps.npy", "--first-window", "9"], ["steps.npy", "4 windows"]),
    "both from standard input": (["-", "--current", "-"], ["standard input", "read once"]),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line(kind, run):
    args, parts = BAD[kind]
    code, out, err = run("compare", *args)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"eplb-np: .*\n", err)
    for part in parts:
        assert part in err


def test_help_has_examples_and_exit_codes(run):
    code, out, _ = run("compare", "-h")
    assert code == 0
    assert "eplb-np compare loads.json" in out
    assert all(f"{number}," in out for number in (0, 1, 2, 130))
