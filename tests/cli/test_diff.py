"""``eplb-np diff``: what moves from one plan to another, and what it takes."""

import json

import numpy as np
import pytest

from eplb_np import Topology, in_order_plan, make_plan, moved_replicas
from eplb_np.io import write_plan


def test_moves_are_those_of_the_library(command, made):
    code, out, err = command("diff", "old.json", "new.json", "loads.npy", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    moves = made.new.moves_from(made.old)
    assert found["fetched"] == moves.num_fetched > 0
    assert found["moved_replicas"] == moved_replicas(made.old.phy2log, made.new.phy2log, 8)
    assert found["copied_within_gpus"] == len(moves) - moves.num_fetched
    near = sum(
        move.gpu // 4 == move.source_gpu // 4 for move in moves if move.gpu != move.source_gpu
    )
    assert found["from_same_node"] == near
    assert found["from_other_nodes"] == moves.num_fetched - near
    assert found["from_storage"] == 0
    assert found["share_of_slots"] == moves.num_fetched / 32
    assert found["bytes"] is None
    assert found["changed_layers"] == sorted({made.ids[move.layer] for move in moves})
    assert found["balancedness_before"] == made.old.balancedness(made.rows)
    assert found["balancedness_after"] == made.new.balancedness(made.rows)
    by_layer = [row["fetched"] for row in found["layers"]]
    fetched = [move for move in moves if move.gpu != move.source_gpu]
    assert by_layer == [sum(move.layer == row for move in fetched) for row in (0, 1)]
    gpus = range(8)
    assert [row["fetched"] for row in found["gpus"]] == [
        sum(move.gpu == gpu for move in fetched) for gpu in gpus
    ]
    assert [row["sent"] for row in found["gpus"]] == [
        sum(move.source_gpu == gpu for move in fetched) for gpu in gpus
    ]
    assert found["most_on_one_gpu"] == max(row["fetched"] for row in found["gpus"])


def test_moves_are_listed_with_ids_of_layers(command, made):
    found = json.loads(command("diff", "old.json", "new.json", "--by", "move", "--json")[1])
    moves = made.new.moves_from(made.old)
    assert [move["layer"] for move in found["moves"]] == [made.ids[move.layer] for move in moves]
    assert [move["slot"] for move in found["moves"]] == [move.slot for move in moves]
    assert "moves" not in json.loads(command("diff", "old.json", "new.json", "--json")[1])


@pytest.mark.parametrize(
    ("by", "header", "rows"), [("layer", "layer  fetched", 2), ("gpu", "GPU  node  fetched", 8)]
)
def test_tables_by_layer_and_by_gpu(by, header, rows, command):
    _, out, _ = command("diff", "old.json", "new.json", "--by", by)
    table, summary = out.split("\n\n")
    assert table.startswith(header)
    assert len(table.splitlines()) == 1 + rows
    assert summary.startswith("old ")


def test_what_it_takes_is_said(command, made):
    _, out, _ = command("diff", "old.json", "new.json", "--expert-bytes", "44040192")
    number = made.new.moves_from(made.old).num_fetched
    assert f"{number} replicas to fetch, {number / 32:.2%} of all slots, in 2 of 2 layers" in out
    assert f"{number * 44040192 / 1e9:.3g} GB" in out
    assert "of the same node" in out


def test_nothing_moves_from_a_plan_to_itself(command):
    _, out, _ = command("diff", "new.json", "new.json")
    assert "none: every GPU holds its experts already" in out
    assert "0 of 2 change" in out
    assert "every expert keeps its number" in out


def test_a_second_replica_is_counted_apart(command):
    """GPU 0 is to hold expert 0 twice, and holds it once."""
    old = in_order_plan(1, Topology(4, 6, 2))
    new = make_plan([[90, 30, 10, 10]], old.topology, policy="deepseek")
    assert new.phy2log.tolist() == [[0, 0, 2, 1, 0, 3]]
    old.save("a.json")
    new.save("b.json")
    _, out, _ = command("diff", "a.json", "b.json")
    moved = moved_replicas(old.phy2log, new.phy2log, 2)
    fetched = new.moves_from(old).num_fetched
    assert (moved, fetched) == (1, 0)
    assert "none: every GPU holds its experts already" in out
    assert "1 more are second replicas of an expert on its GPU" in out
    assert f"moved_replicas counts {moved}" in out


def test_plans_of_different_formats_are_compared(command, made):
    """The sizes that one file does not say are those of the other, and so are the layers."""
    write_plan(made.new, "sglang.json", "sglang", num_hidden_layers=4)
    write_plan(made.new, "ascend.json", "vllm-ascend")
    for names in (("new.json", "sglang.json"), ("ascend.json", "new.json")):
        code, out, err = command("diff", *names, "--json")
        assert (code, err) == (0, "")
        found = json.loads(out)
        assert found["fetched"] == 0
        assert [row["layer"] for row in found["layers"]] == [1, 3]
    code, _, err = command("diff", "sglang.json", "sglang.json")
    assert code == 2
    assert "give --gpus" in err


def test_what_was_lost_comes_from_storage(command):
    in_order_plan(1, Topology(4, 6, 3)).save("old.json")  # experts 2 and 3 are on GPU 1 alone
    left = Topology(4, 6, 3, active_gpus=[0, 2])
    make_plan([[4, 3, 2, 1]], left, policy="refined").save("new.json")
    found = json.loads(command("diff", "old.json", "new.json", "--json")[1])
    assert found["from_storage"] == 2
    assert (
        "2 from storage: no GPU holds them any more" in command("diff", "old.json", "new.json")[1]
    )


def test_plans_of_other_sizes_are_one_line(command):
    in_order_plan(2, Topology(12, 24, 8)).save("large.json")
    code, out, err = command("diff", "new.json", "large.json", "--layers", "1")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "large.json has 12 experts in 24 slots on 8 GPUs" in err
    assert "new.json has 12 experts in 16 slots" in err


def test_standard_input_is_read_once(command, made, files):
    given = (files / "old.json").read_bytes()
    code, out, _ = command("diff", "-", "new.json", given=given)
    assert code == 0
    assert out.startswith("old          standard input")
    code, _, err = command("diff", "-", "-", given=given)
    assert (code, err) == (
        2, "eplb-np: standard input: it can be read once: give the name of the other file\n"
    )  # fmt: skip


def test_a_history_is_no_matter(command, made):
    np.save("steps.npy", np.stack([made.load, made.load]))
    assert command("diff", "old.json", "new.json", "steps.npy")[0] == 0
