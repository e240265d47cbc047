"""``eplb-np convert``: plans and loads in other formats, and what is lost."""

import gzip
import json

import numpy as np
import pytest

from eplb_np import Plan
from eplb_np.io import FORMATS, read_loads, read_plan, write_plan

SIZES = ["--gpus", "8", "--nodes", "2", "--groups", "4"]


@pytest.mark.parametrize(
    ("name", "file", "ids"),
    [
        ("sglang", "out.json", [1, 3]),
        ("sglang-jax", "out.npy", [1, 3]),
        ("vllm-ascend", "out.json", [0, 1]),
    ],
)
def test_a_plan_goes_to_an_engine_and_back(name, file, ids, command, made):
    code, out, err = command("convert", "new.json", file, "--to", name, "--hidden-layers", "4")
    assert (code, err) == (0, "")
    assert "a plan of 12 experts in 2 layers (1, 3)" in out
    assert "nodes and groups (2 and 4)" in out
    assert ("the number of GPUs (8)" in out) == (name != "vllm-ascend")
    assert ("the ids of the layers (1, 3)" in out) == (name == "vllm-ascend")
    assert ("layers that are not planned" in out) == (name != "vllm-ascend")
    layers = ",".join(map(str, ids)) if name != "vllm-ascend" else "1,3"
    options = [*SIZES, "--layers", layers]
    code, out, err = command("convert", file, "back.json", "--to", "eplb_np", *options)
    assert (code, err) == (0, "")
    assert f"{file} ({name})" in out
    assert "note" not in out
    back = Plan.load("back.json")
    assert np.array_equal(back.phy2log, made.new.phy2log)
    assert (back.topology, back.moe_layer_ids) == (made.new.topology, (1, 3))


def test_ranks_that_are_not_in_the_file_are_said(command, made):
    _, out, _ = command("convert", "new.json", "a.json", "--to", "vllm-ascend")
    assert "ranks of replicas" not in out
    ranks = np.where(made.new.logcnt[[[0], [1]], made.new.phy2log] > 1, 1, 0) - made.new.phyrank
    Plan(made.new.phy2log, abs(ranks), made.new.topology, "backwards").save("back.json")
    _, out, _ = command("convert", "back.json", "b.json", "--to", "vllm-ascend")
    assert "the ranks of replicas, which are numbered by their slots" in out
    assert "ranks" not in command("convert", "back.json", "c.npz", "--to", "eplb_np")[1]


def test_rows_of_every_layer_keep_their_number(command, made):
    write_plan(made.new, "sglang.json", "sglang", num_hidden_layers=4)
    code, out, _ = command("convert", "sglang.json", "map.npy", "--to", "sglang-jax", *SIZES)
    assert code == 0
    assert np.load("map.npy").shape == (4, 16)
    assert "not planned" not in out


def test_loads_go_to_an_array_and_back(command, made):
    steps = np.stack([made.load, 2 * made.load[:, ::-1]])
    np.save("steps.npy", steps)
    code, _, err = command("convert", "steps.npy", "out.npy", "--to", "numpy")
    assert (code, err) == (0, "")
    kept = np.load("out.npy")
    assert np.array_equal(kept, steps)
    assert kept.dtype == np.int64  # they are whole numbers
    code, out, _ = command("convert", "steps.npy", "out.json", "--to", "sglang")
    assert code == 0
    assert "not in the file: the order of the 2 steps, which are summed" in out
    assert np.array_equal(read_loads("out.json").load, steps.sum(axis=0)[[1, 3]])
    code, out, _ = command("convert", "steps.npy", "sum.npy", "--to", "numpy", "--summed")
    assert np.array_equal(np.load("sum.npy"), steps.sum(axis=0))


def test_loads_without_a_number_of_layers_end_with_the_last(command, made):
    header = "layer," + ",".join(f"expert_{i}" for i in range(12))
    lines = [f"{i}," + ",".join(map(str, made.load[i])) for i in made.ids]
    with open("loads.csv", "w") as file:  # noqa: PTH123
        file.write("\n".join([header, *lines]))
    assert command("convert", "loads.csv", "out.npy", "--to", "numpy")[0] == 0
    assert np.array_equal(np.load("out.npy"), made.load)
    command("convert", "loads.csv", "out.npy", "--to", "numpy", "--hidden-layers", "6")
    assert np.load("out.npy").shape == (6, 12)
    code, _, err = command("convert", "loads.csv", "out.json", "--to", "lmdeploy")
    assert code == 2
    assert "give --hidden-layers" in err


def test_what_holds_both_is_a_plan_unless_loads_are_wanted(command, made):
    both = {
        "tokens_per_expert_stats_list": made.load.astype(int).tolist(),
        "ep_rank_to_expert_id_list": np.tile(np.arange(16) % 12, (4, 1)).tolist(),
    }
    with open("both.json", "w") as file:  # noqa: PTH123
        json.dump(both, file)
    _, out, _ = command("convert", "both.json", "a.json", "--to", "sglang", *SIZES, "--json")
    assert json.loads(out)["holds"] == "plan"
    assert read_plan("a.json", num_gpus=8).num_layers == 4
    _, out, _ = command("convert", "both.json", "b.json", "--to", "sglang", "--loads", "--json")
    assert json.loads(out)["holds"] == "loads"
    assert np.array_equal(read_loads("b.json").load, made.rows)


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_an_array_of_whole_numbers_is_loads_unless_every_row_is_a_map(dtype, command):
    loads = np.arange(1, 13).reshape(2, 6)
    np.save("a.npy", loads.astype(dtype))
    np.save("map.npy", np.array([[0, 1, 2, 0], [2, 1, 0, 0]]).astype(dtype))
    code, out, _ = command("convert", "a.npy", "b.npy", "--to", "numpy", "--json")
    assert (code, json.loads(out)["holds"]) == (0, "loads")
    code, out, err = command("convert", "map.npy", "p.json", "--to", "eplb_np", "--gpus", "2")
    if dtype is np.int64:
        assert (code, err) == (0, "")
        assert Plan.load("p.json").phy2log.tolist() == [[0, 1, 2, 0], [2, 1, 0, 0]]
    else:
        assert (code, err.count("\n")) == (2, 1)
        assert "map.npy: it holds loads, which eplb_np cannot" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["new.json", "x.npy", "--to", "numpy"], "new.json: it holds a plan, which numpy cannot"),
        (
            ["loads.npy", "x.json", "--to", "vllm-ascend"],
            "it holds loads, which vllm-ascend cannot",
        ),
        (["new.json", "x.json", "--to", "other"], "'other' is no format that is written"),
        (["new.json", "x.json"], "--to"),
        (["new.json", "x.npy", "--to", "sglang", "--hidden-layers", "4"], "unknown file suffix"),
        (["new.json", "x.json", "--to", "sglang"], "give --hidden-layers"),
        (["new.json", "new.json", "--to", "eplb_np"], "it is the file that is read"),
        (["absent.json", "x.json", "--to", "sglang"], "absent.json: No such file"),
        (["new.json", "x.json", "--to", "eplb_np", "--format", "sglang"], "not of format 'sglang'"),
        (["new.json", "absent/x.json", "--to", "eplb_np"], "absent/x.json"),
        (["loads.npy", "x.txt", "--to", "numpy"], "unknown file suffix"),
    ],
)
def test_what_cannot_be_converted_is_one_line(args, said, command, files):
    before = sorted(files.iterdir())
    code, out, err = command("convert", *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert sorted(files.iterdir()) == before


def test_through_standard_input_and_output(command, made, files):
    """What is said then goes to standard error, and the name of no temporary file is in it."""
    given = gzip.compress((files / "new.json").read_bytes())
    options = ["--to", "sglang", "--hidden-layers", "4"]
    code, out, err = command("convert", "-", "-", *options, given=given)
    assert code == 0
    assert json.loads(out).keys() == {"physical_to_logical_map"}
    assert "standard input (eplb_np)" in err
    assert "--init-expert-location FILE " in err
    code, out, err = command("convert", "-", "-", *options, "--json", given=given)
    assert json.loads(out).keys() == {"physical_to_logical_map"}
    assert json.loads(err)["output"] == "standard output"


def test_formats_that_do_both_tell_plans_from_loads():
    for name, row in FORMATS.items():
        if row.reads_loads and row.reads_plans:
            assert callable(row.member("holds_plan")), name
