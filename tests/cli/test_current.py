"""``eplb-np plan``: sizes that follow from the model, the plan in use, limits, and streams."""

import io
import json
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest

from eplb_np import MoveLimits, Plan, Topology, in_order_plan, make_plan, moved_replicas
from eplb_np.__main__ import main
from eplb_np.cli.options import Sizes, topology_from
from eplb_np.io import write_plan


@pytest.mark.parametrize(
    ("experts", "gpus", "slots"),
    [(256, 32, 288), (128, 32, 160), (256, 8, 264), (8, 4, 12), (8, 32, 32), (100, 32, 128)],
)
def test_slots_follow_from_experts_and_gpus(experts, gpus, slots):
    assert topology_from(experts, Sizes(gpus=gpus)).num_replicas == slots
    spare = slots // gpus * gpus - experts
    assert spare >= gpus or experts // gpus == slots // gpus - 1


def test_slots_that_nobody_asked_for_are_said(command):
    _, out, _ = command("plan", "loads.npy", "--gpus", "4")
    assert "16 follow from 12 experts on 4 GPUs: the fewest with spare slots on every GPU" in out
    assert "12 experts in 16 slots on 4 GPUs, 4 replicas per GPU" in out
    assert "follow" not in command("plan", "loads.npy", "--gpus", "4", "--replicas", "16")[1]


def test_a_plan_in_use_is_mended_and_keeps_its_sizes(command, made):
    code, out, err = command("plan", "loads.npy", "--current", "old.json", "-o", "next.json")
    assert (code, err) == (0, "")
    expected = make_plan(made.rows, current=made.old, policy="refined")
    assert Plan.load("next.json") == expected
    assert f"{made.old.balancedness(made.rows):.4f} before (the plan in use)" in out
    assert "12 experts in 16 slots on 8 GPUs of 2 nodes" in out
    moved = moved_replicas(made.old.phy2log, expected.phy2log, 8)
    assert f"{moved} replicas to fetch, {moved / 32:.2%} of all slots" in out
    assert "follow" not in out


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        (["--max-moves", "3"], MoveLimits(total=3)),
        (["--max-moves-per-gpu", "1"], MoveLimits(per_gpu=1)),
        (["--price", "20"], MoveLimits(price=20)),
        (["--tolerance", "0.5"], MoveLimits(tolerance=0.5)),
        (["--max-moves", "0"], MoveLimits(total=0)),
    ],
)
def test_limits_are_those_of_the_library(options, limits, command, made):
    code, out, _ = command(
        "plan", "loads.npy", "--current", "old.json", *options, "-o", "next.json", "--json",
        "--expert-bytes", "1000",
    )  # fmt: skip
    assert code == 0
    free = make_plan(made.rows, current=made.old, policy="refined")
    expected = make_plan(made.rows, current=made.old, limits=limits, policy="refined")
    assert expected != free
    assert Plan.load("next.json") == expected
    summary = json.loads(out)
    moves = expected.moves_from(made.old)
    assert summary["current"] == "old.json"
    assert summary["moves"]["fetched"] == moves.num_fetched
    assert summary["moves"]["bytes"] == 1000 * moves.num_fetched


def test_a_plan_of_an_engine_may_be_in_use(command, made):
    write_plan(made.old, "sglang.json", "sglang", num_hidden_layers=4)
    sizes = ["--gpus", "8", "--nodes", "2", "--groups", "4"]
    code, _, err = command(
        "plan", "loads.npy", "--current", "sglang.json", *sizes, "-o", "next.json"
    )
    assert (code, err) == (0, "")
    assert Plan.load("next.json") == make_plan(made.rows, current=made.old, policy="refined")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--max-moves", "3"], "no plan to move from: give --current"),
        (["--expert-bytes", "3"], "no plan to move from: give --current"),
        (["--current", "old.json", "--max-moves", "-1"], "-1"),
        (["--current", "old.json", "--price", "nan"], "price=nan"),
        (["--current", "old.json", "--tolerance", "-1"], "tolerance=-1"),
        (["--current", "old.json", "--policy", "hybrid"], "cannot mend current"),
        (["--current", "old.json", "--gpus", "4"], "it is for 8 GPUs, not 4"),
        (["--current", "old.json", "--replicas", "24"], "24 slots on 8 GPUs"),
        (["--current", "other.json"], "other.json: it has no layer 1; its layers are 0, 2"),
        (["--current", "loads.npy"], "loads.npy: "),
        (["--current", "absent.json"], "absent.json: No such file"),
    ],
)
def test_what_does_not_fit_the_plan_in_use_is_one_line(args, said, command, made):
    topology = made.old.topology
    Plan(made.old.phy2log, made.old.phyrank, topology, "x", (0, 2)).save("other.json")
    code, out, err = command("plan", "loads.npy", *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_history_is_forecast_from_with_a_plan_in_use(command, made):
    steps = np.stack([made.load, made.load[:, ::-1], made.load[:, ::-1]])
    np.save("steps.npy", steps)
    command("plan", "steps.npy", "--current", "old.json", "-o", "next.json")
    expected = make_plan(steps[:, [1, 3]], current=made.old, policy="refined")
    assert Plan.load("next.json") == expected


def test_a_node_that_carries_more_than_its_share_is_said(command, made):
    out = command("plan", "loads.npy", "--replicas", "16", "--gpus", "8", "--nodes", "2",
                  "--groups", "4", "--json")[1]  # fmt: skip
    summary = json.loads(out)
    found = asdict(make_plan(made.rows, made.new.topology).summary(made.rows))
    for name in ("node_share", "busiest_node", "busiest_node_layers", "duplicates"):
        assert summary[name] == found[name]
    sizes = ["--replicas", "16", "--gpus", "8", "--nodes", "2", "--groups", "4"]
    out = command("plan", "loads.npy", *sizes)[1]
    assert f"the busiest carries {found['node_share']:.4f} times the mean; it is node" in out
    one_node = command("plan", "loads.npy", "--gpus", "8")[1]
    assert "times the mean" not in one_node


def test_loads_from_standard_input_and_a_plan_to_standard_output(command, made, files):
    given = (files / "loads.npy").read_bytes()
    code, out, err = command("plan", "-", "--current", "old.json", "-o", "-", given=given)
    assert code == 0
    (files / "next.json").write_text(out)
    assert Plan.load("next.json") == make_plan(made.rows, current=made.old, policy="refined")
    assert "loads             standard input (numpy)" in err
    assert "written to        standard output" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "standard input: it is an empty file"),
        (b"\x00" * 9, "standard input: "),
        (b"[[1, 2", "standard input: "),
    ],
)
def test_bad_standard_input_is_one_line(given, said, command):
    code, out, err = command("plan", "-", given=given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"eplb-np: {said}")


class Endless(io.BytesIO):
    """Gives as much as it is asked for, and no more than that."""

    def read(self, size=-1):
        assert size >= 0, "everything was asked for"
        return b"[" * size


def test_endless_standard_input_is_refused(files, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=Endless()))
    monkeypatch.setattr("sys.argv", ["eplb-np", "plan", "-"])
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == (
        "eplb-np: standard input: it has more than 128 MiB: give the name of a file\n"
    )


def test_a_plan_in_use_from_standard_input(command, made, files):
    given = (files / "old.json").read_bytes()
    code, out, _ = command("plan", "loads.npy", "--current", "-", given=given)
    assert code == 0
    assert "plan in use       standard input" in out
    code, _, err = command("plan", "-", "--current", "-", given=given)
    assert code == 2
    assert "it can be read once" in err


def test_an_own_plan_without_nodes_may_get_some(command, made):
    """As somebody who planned for one node, and now tells the nodes."""
    flat = in_order_plan(2, Topology(12, 16, 8))
    Plan(flat.phy2log, flat.phyrank, flat.topology, "x", made.ids).save("flat.json")
    code, out, _ = command(
        "plan", "loads.npy", "--current", "flat.json", "--nodes", "2", "--groups", "4", "--json"
    )
    assert code == 0
    assert json.loads(out)["placement"] == "hierarchical"
