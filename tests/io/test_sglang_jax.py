"""sglang-jax: pickled dumps of its recorder, as single files and folders, and its maps."""

import io
import json

import numpy as np
import pytest
from recorded import INTEROP, needs_interop
from sglang_samples import jax_dump, stat_dump
from support import assert_same, refused

from eplb_np import Topology, in_order_plan, make_plan
from eplb_np.io import read_loads, read_plan, write_plan

COUNTS = np.random.default_rng(13).integers(1, 99, (4, 3, 6))  # dumps, layers, experts
PLAN = make_plan(COUNTS[0, 1:], num_replicas=8, num_gpus=4, moe_layer_ids=[1, 3])


def as_npy(values):
    file = io.BytesIO()
    np.save(file, values, allow_pickle=True)
    return file.getvalue()


@pytest.fixture
def write(tmp_path):
    def write(content, name="x_20261124_1541.npy"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


@needs_interop
@pytest.mark.parametrize("name", ["sgljax", "sgljax_no_metadata"])
def test_samples(name):
    p2l = np.load(INTEROP / "p2l.npy")
    slots = np.arange(30).reshape(3, 10)  # what was counted
    (file,) = (INTEROP / name).iterdir()
    experts = np.stack([np.bincount(p, w) for p, w in zip(p2l, slots, strict=True)])
    for path in (file, INTEROP / name):
        found = read_loads(path)
        assert (found.format, found.num_hidden_layers, found.steps) == ("sglang-jax", 3, None)
        expected = slots if "no" in name else experts
        assert_same([found.load], [expected.astype(float)], name)


@needs_interop
def test_counts_of_slots_are_added_up_by_the_plan_in_use(tmp_path):
    path = tmp_path / "p2l.npy"
    np.save(path, np.load(INTEROP / "p2l.npy"))
    current = read_plan(path, num_gpus=2)
    found = read_loads(INTEROP / "sgljax_no_metadata", current=current)
    assert_same([found.load], [read_loads(INTEROP / "sgljax").load], "added up")
    assert_same([found.phy2log], [current.phy2log], "the map")
    with refused("sgljax", "8 columns", "10 slots"):
        read_loads(INTEROP / "sgljax", current=current)


def test_a_sum_over_slots_hides_no_bad_count(write):
    current = in_order_plan(2, Topology(3, 6, 2))
    counts = np.full((2, 6), 5.0)
    for bad, said in [(-1, "-1"), (np.nan, "nan"), (np.inf, "inf")]:
        counts[1, 2] = bad
        path = write(jax_dump(counts))
        with refused(str(path), f"logical_count[1, 2] = {said}"):
            read_loads(path, current=current)


@pytest.mark.parametrize("dtype", ["int64", "int32", "float32", ">i8"])
def test_a_dump_has_every_decoder_layer(dtype, write):
    counts = COUNTS[0].astype(dtype)
    counts[1] = 0
    found = read_loads(write(jax_dump(counts)))
    assert (found.format, found.num_steps) == ("sglang-jax", 1)
    assert (found.moe_layer_ids, found.dense_layer_ids) == ([0, 2], [1])
    assert_same([found.load], [COUNTS[0, [0, 2]].astype(float)], dtype)


def test_dumps_of_a_folder_are_windows_in_order_of_time(tmp_path, write):
    times = ["20261124_1541", "20251231_2359", "20261124_0941", "20261125_0000"]
    for i, (counts, time) in enumerate(zip(COUNTS, times, strict=True)):
        write(jax_dump(counts, time), f"{i}.npy")
    found = read_loads(tmp_path)
    assert_same([found.steps], [COUNTS[[1, 2, 0, 3]]], "windows")
    assert (found.num_steps, found.format) == (4, "sglang-jax")
    assert_same([found.load], [COUNTS.sum(axis=0).astype(float)], "their sum")


@pytest.mark.parametrize("time", ["20261124_1541", "yesterday", None, 7])
def test_windows_whose_time_is_not_known_are_summed(time, tmp_path, write):
    write(jax_dump(COUNTS[0]), "0.npy")
    write(jax_dump(COUNTS[1], time), "1.npy")
    found = read_loads(tmp_path)
    assert (found.steps, found.num_steps) == (None, 2)
    assert any("order is not known" in note for note in found.notes)
    assert_same([read_loads(tmp_path, in_order=True).steps], [COUNTS[:2]], "by name")


class Evil:
    def __reduce__(self):
        return print, ("run",)


BAD = {
    "another key": (as_npy({"counts": COUNTS[0]}), ["'counts'", "no known format"]),
    "no dict": (as_npy(np.array(7, object)), ["pickled object", "no known format"]),
    "a map only": (as_npy({"physical_to_logical_map": COUNTS[0]}), ['no key "logical_count"']),
    "a function": (as_npy({"logical_count": COUNTS[0], "x": Evil()}), ["print"]),
    "objects": (as_npy({"logical_count": COUNTS[0].astype(object)}), ["Python objects"]),
    "text": (as_npy({"logical_count": "[[1]]"}), ["real number"]),
    "several objects": (as_npy(np.array([{}, COUNTS[0]], object)), ["allow_pickle=False"]),
    "a negative count": (as_npy({"logical_count": -COUNTS[0]}), ["[0, 0]", "not negative"]),
    "1-D": (as_npy({"logical_count": COUNTS[0, 0]}), ["(6,)", "[layers, experts]"]),
    "a layout that nobody knows": (
        as_npy({"logical_count": COUNTS[0], "logical_count_layout": "x"}), ["layout", "'x'"],
    ),
    "cut": (jax_dump(COUNTS[0])[:-9], []),
    "more": (jax_dump(COUNTS[0]) + b"x", ["more data"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_dumps_are_refused(kind, write, capsys):
    content, parts = BAD[kind]
    path = write(content)
    with refused(str(path), *parts):
        read_loads(path)
    assert capsys.readouterr().out == ""


def test_bad_folders_are_refused(tmp_path, write):
    write(jax_dump(COUNTS[0]), "0.npy")
    second = write(jax_dump(COUNTS[1, :, :5]), "1.npy")
    with refused(str(second), "(3, 5)", "(3, 6)", "one model"):
        read_loads(tmp_path)
    write(jax_dump(COUNTS), "1.npy")
    with refused(str(second), "(4, 3, 6)", "[layers, experts]"):
        read_loads(tmp_path)
    write(as_npy(COUNTS[1]), "1.npy")
    with refused(str(second), "an .npy array", "not a dump"):
        read_loads(tmp_path)
    write(stat_dump(COUNTS), "1.npy")
    with refused(str(second), "torch.save", "not a dump"):
        read_loads(tmp_path)


# ---------------------------------------------------------------------------------------------
# Maps
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_map_has_all_layers(suffix, tmp_path):
    path = tmp_path / f"plan{suffix}"
    written = write_plan(PLAN, path, "sglang-jax", num_hidden_layers=5)
    if suffix == ".npy":
        rows = np.load(path)
        assert rows.dtype == np.int32
    else:
        content = json.loads(path.read_text())
        assert list(content) == ["physical_to_logical_map"]
        rows = np.array(content["physical_to_logical_map"])
    trivial = np.arange(8) % 6
    first, second = PLAN.phy2log
    np.testing.assert_array_equal(rows, [trivial, first, trivial, second, trivial])
    assert written.start == (
        f"--init-expert-location {path} --ep-num-redundant-experts 2 --ep-size 4 "
        "--ep-dispatch-algorithm dynamic"
    )
    for name in ("sglang-jax", None):
        again = read_plan(path, name, num_gpus=4, moe_layer_ids=[1, 3])
        np.testing.assert_array_equal(again.phy2log, PLAN.phy2log)
        assert again.topology == PLAN.topology
        assert again.policy == ("sglang-jax" if name or suffix == ".npy" else "sglang")


def test_what_the_server_would_take_in_silence_is_not_written(tmp_path):
    path = tmp_path / "plan.npy"
    with refused("sglang-jax", "num_hidden_layers"):
        write_plan(PLAN, path, "sglang-jax")
    for suffix in (".NPY", ".Json"):
        with refused(f"suffix {suffix}", f"write {suffix.lower()}"):
            write_plan(PLAN, path.with_suffix(suffix), "sglang-jax", num_hidden_layers=4)
    with refused("unknown file suffix"):
        write_plan(PLAN, path.with_suffix(".npz"), "sglang-jax", num_hidden_layers=4)
    unequal = in_order_plan(2, Topology(5, 8, 3, gpu_slots=[3, 3, 2]))
    with refused("the GPUs differ in slots", "sglang-jax"):
        write_plan(unequal, path, "sglang-jax", num_hidden_layers=2)
    assert not list(tmp_path.iterdir())


def test_an_array_of_integers_is_loads_or_a_plan_as_it_is_asked_for(write):
    rows = np.array([[0, 1, 2, 0], [2, 1, 0, 1]])
    path = write(as_npy(rows))
    found = read_loads(path)
    assert found.format == "numpy"
    assert_same([found.load], [rows.astype(float)], "loads")
    plan = read_plan(path, num_gpus=2)
    assert (plan.policy, plan.phy2log.tolist()) == ("sglang-jax", rows.tolist())
    with refused(str(path), "not of format 'sglang-jax'"):
        read_loads(path, "sglang-jax")
    for other in (rows[None], rows[0], rows * 1.0, rows.astype(bool)):
        with refused(str(path), "not a plan"):
            read_plan(write(as_npy(other)), num_gpus=2)
    with refused(str(path), "slot 2 of row 0 holds -1"):
        read_plan(write(as_npy(np.array([[0, 1, -1, 2]]))), num_gpus=2)
    with refused(str(path), "expert 1"):
        read_plan(write(as_npy(np.array([[0, 2, 0, 2]]))), num_gpus=2)
    with refused(str(path)):
        read_plan(write(as_npy(np.array([[0, 2**62, 0, 2]]))), num_gpus=2)


def test_a_map_in_a_dict_is_read(write):
    rows = np.array([[0, 1, 2, 0], [2, 1, 0, 1]])
    path = write(as_npy({"physical_to_logical_map": rows}))
    assert_same([read_plan(path, num_gpus=2).phy2log], [rows], "the map")
    with refused(str(path), "physical_to_logical_map", "float64"):
        read_plan(write(as_npy({"physical_to_logical_map": rows * 1.0})), num_gpus=2)
    with refused(str(path), 'no key "physical_to_logical_map"'):
        read_plan(write(jax_dump(rows)), num_gpus=2)


def test_json_is_read_if_the_format_is_named(write):
    path = write(json.dumps({"logical_count": COUNTS[0].tolist()}).encode(), "x.json")
    assert read_loads(path).format == "sglang"
    found = read_loads(path, "sglang-jax")
    assert_same([found.load], [COUNTS[0].astype(float)], "JSON")
    assert found.format == "sglang-jax"
