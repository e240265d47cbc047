"""SGLang: dumps of its recorder, as single files and folders, and its maps."""

import json

import numpy as np
import pytest
from recorded import INTEROP, needs_interop
from sglang_samples import (
    NAME,
    SAMPLES,
    choices_of,
    rank_dump,
    rank_records,
    stat_dump,
    write_ranks,
)
from support import assert_same, refused
from torch_samples import torch_zip

from eplb_np import Topology, in_order_plan, make_plan
from eplb_np.io import read_loads, read_plan, write_plan

RNG = np.random.default_rng(11)
P2L = np.array([[0, 1, 2, 3, 0, 1], [0, 1, 0, 2, 3, 1], [2, 0, 2, 1, 3, 2]])
SLOTS = RNG.integers(0, 9, (5, 3, *P2L.shape)).astype(np.int32)  # passes, ranks, layers, slots
COUNTS = RNG.integers(1, 99, (4, 3, 5)).astype(np.int32)  # steps, layers, experts
LATER = 17e8 + 100


def of_experts(slots, p2l):
    """Counts [..., layers, slots] added up by a map, one by one."""
    counts = np.zeros((*slots.shape[:-1], p2l.max() + 1))
    for layer, slot in np.ndindex(p2l.shape):
        counts[..., layer, p2l[layer, slot]] += slots[..., layer, slot]
    return counts


PASSES = of_experts(SLOTS.sum(axis=1), P2L)


@pytest.fixture
def write(tmp_path):
    def write(content, name=f"{NAME}_1.5.pt"):
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write


# ---------------------------------------------------------------------------------------------
# What SGLang's own recorder wrote
# ---------------------------------------------------------------------------------------------


@needs_interop
@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("sglang_stat", 3),
        ("sglang_stat_two_ranks", 3),
        ("sglang_stat_infinite", 3),
        ("sglang_stat_wrapped", 8),
        ("sglang_per_pass", 4),
        ("sglang_per_token", 2),
    ],
)
def test_dumps_of_the_recorder(name, kept):
    slots = np.load(INTEROP / f"{name}.expected.npy").sum(axis=1)
    p2l = np.load(INTEROP / "p2l.npy")
    expected = of_experts(slots, p2l)[-kept:]  # a ring keeps the last ones
    found = read_loads(INTEROP / name)
    assert (found.format, found.num_steps) == ("sglang", kept)
    assert (found.moe_layer_ids, found.num_hidden_layers) == ([0, 1, 2], 3)
    assert_same([found.load], [expected.sum(axis=0)], name)
    if "stat" in name:
        assert found.steps is None
        assert any("not known" in note for note in found.notes)
        in_order = read_loads(INTEROP / name, in_order=True).steps
        order = (-len(slots)) % 8 if kept == 8 else 0  # where a ring of 8 goes on
        np.testing.assert_array_equal(in_order, np.roll(expected, -order, axis=0))
    else:
        np.testing.assert_array_equal(found.steps, expected)
        np.testing.assert_array_equal(found.phy2log, p2l)


@needs_interop
def test_a_dump_of_one_of_two_ranks_is_refused():
    for rank, path in enumerate(sorted((INTEROP / "sglang_per_pass").iterdir())):
        with refused(str(path), f"rank {rank} alone", f"rank {1 - rank} lies beside", "folder"):
            read_loads(path)


# ---------------------------------------------------------------------------------------------
# stat
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
def test_steps_of_a_ring(dtype, write):
    ring = np.concatenate([COUNTS, 0 * COUNTS]).astype(dtype)
    ring[:, 0] = 0  # a dense layer
    path = write(stat_dump(ring))
    found = read_loads(path)
    assert (found.steps, found.num_steps) == (None, 4)
    assert (found.moe_layer_ids, found.dense_layer_ids) == ([1, 2], [0])
    assert_same([found.load], [COUNTS[:, 1:].sum(axis=0).astype(float)], dtype)
    np.testing.assert_array_equal(read_loads(path, in_order=True).steps, COUNTS[:, 1:])


def test_dumps_of_several_times_are_windows_in_order(tmp_path, write):
    for window, time in zip(
        COUNTS, ["999999999.25", "1000000000.5", "2.0", "1000000000.25"], strict=True
    ):
        write(stat_dump(np.stack([window, window])), f"{NAME}_{time}.pt")
    found = read_loads(tmp_path)
    assert (found.num_steps, found.format) == (4, "sglang")
    np.testing.assert_array_equal(found.steps, 2 * COUNTS[[2, 0, 3, 1]])
    write(stat_dump(COUNTS), "of no time.pt")
    found = read_loads(tmp_path)
    assert (found.num_steps, found.steps) == (5, None)
    assert_same([found.load], [3.0 * COUNTS.sum(axis=0)], "dumps without times")


def test_dumps_of_the_same_time_are_summed(tmp_path, write):
    for i, time in enumerate(["17.5", "17.50", "4.0"]):
        write(stat_dump(COUNTS[i]), f"{NAME}_{time}.pt")
    found = read_loads(tmp_path)
    assert (found.num_steps, found.steps) == (3, None)


def test_counts_of_ranks_are_one_step(write):
    path = write(stat_dump(COUNTS, logical_count_layout="rank_layer_expert"))
    for found in (read_loads(path), read_loads(path, num_ranks=4)):
        assert (found.num_steps, found.steps) == (1, None)
        assert_same([found.load], [COUNTS.sum(axis=0).astype(float)], "ranks")
    with refused(str(path), "4 ranks", "num_ranks=5"):
        read_loads(path, num_ranks=5)
    text = {"logical_count": COUNTS.tolist(), "logical_count_layout": "rank_layer_expert"}
    assert read_loads(write(json.dumps(text).encode(), "x.json")).num_steps == 1


STATS = {
    "a layout that nobody knows": (
        stat_dump(COUNTS, logical_count_layout="expert_layer"), ["'expert_layer'", "rank_layer"],
    ),
    "a layout that is no text": (stat_dump(COUNTS, logical_count_layout=[1]), ["[1]"]),
    "ranks without an axis": (
        stat_dump(COUNTS[0], logical_count_layout="rank_layer_expert"), ["(3, 5)", "[ranks"],
    ),
    "a negative count of a rank": (
        stat_dump(COUNTS - 99 * (np.arange(4) == 1)[:, None, None].astype(np.int32),
                  logical_count_layout="rank_layer_expert"),
        ["logical_count[1][0, 0]", "not negative"],
    ),
    "1-D": (stat_dump(COUNTS[0, 0]), ["(5,)"]),
    "no numbers": (stat_dump(None), ["real number"]),
    "neither key": (torch_zip({"rank": 0, "counts": COUNTS}), ["torch.save", "'counts'"]),
    "no dict": (torch_zip([COUNTS]), ["torch.save", "no known format"]),
    "a tensor": (torch_zip(COUNTS), ["torch.save", "no known format"]),
    "a map only": (torch_zip({"physical_to_logical_map": P2L}), ["'physical_to_logical_map'"]),
    "a module": (
        torch_zip({"rank": 0, "logical_count": COUNTS}).replace(b"torch._utils", b"torch._tools"),
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", STATS)
def test_bad_dumps_of_steps_are_refused(kind, write):
    content, parts = STATS[kind]
    path = write(content)
    with refused(str(path), *parts):
        read_loads(path)


def test_bad_folders_of_steps_are_refused(tmp_path, write):
    write(stat_dump(COUNTS), "1.pt")
    second = write(stat_dump(COUNTS[:, :2]), "2.pt")
    with refused(str(second), "2 layers", "one model"):
        read_loads(tmp_path)
    write(stat_dump(-COUNTS), "2.pt")
    with refused(str(second), "logical_count[0][0, 0]", "not negative"):
        read_loads(tmp_path)
    write(torch_zip({"weight": COUNTS}), "2.pt")
    with refused(str(second), "'weight'", "not a dump"):
        read_loads(tmp_path)
    write(b'{"logical_count": [[1]]}', "2.pt")
    with refused(str(second), "JSON", "not a dump"):
        read_loads(tmp_path)
    write(rank_dump(rank_records(0, SLOTS[:, 0]), P2L), "2.pt")
    with refused(str(second), "mode", "one recording"):
        read_loads(tmp_path)


# ---------------------------------------------------------------------------------------------
# per_pass and per_token
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per_token", [False, True, "only"])
def test_ranks_are_added_up(per_token, tmp_path):
    write_ranks(tmp_path, SLOTS, P2L, per_token=per_token)
    for found in (read_loads(tmp_path), read_loads(tmp_path, num_ranks=3)):
        np.testing.assert_array_equal(found.steps, PASSES)
        assert_same([found.load], [PASSES.sum(axis=0)], "ranks")
        assert_same([found.phy2log], [P2L], "the map")
        assert (found.num_steps, found.num_hidden_layers, found.notes) == (5, 3, ())


def test_one_rank_is_all_if_nothing_says_otherwise(tmp_path):
    (path,) = write_ranks(tmp_path, SLOTS[:, :1], P2L)
    expected = of_experts(SLOTS[:, 0], P2L)
    for found in (read_loads(path), read_loads(tmp_path), read_loads(path, num_ranks=1)):
        np.testing.assert_array_equal(found.steps, expected)
    beside = tmp_path / f"{NAME}_123.5_1.pt"
    beside.write_bytes(b"")
    with refused(str(path), "rank 0 alone", "rank 1 lies beside it", "folder"):
        read_loads(path)
    np.testing.assert_array_equal(read_loads(path, num_ranks=1).steps, expected)
    beside.unlink()
    for given in (path, tmp_path):
        with refused(str(path), "rank 1 of 2 is missing"):
            read_loads(given, num_ranks=2)


def test_a_file_of_all_ranks_is_read(write):
    records = [r for rank in (1, 0, 2) for r in rank_records(rank, SLOTS[:, rank])]
    found = read_loads(write(rank_dump(records, P2L), "x.pt"))
    np.testing.assert_array_equal(found.steps, PASSES)


def test_a_missing_rank_is_named(tmp_path):
    paths = write_ranks(tmp_path, SLOTS, P2L)
    with refused(str(tmp_path), "rank 3 of 4 is missing", "all ranks"):
        read_loads(tmp_path, num_ranks=4)
    with refused(str(tmp_path), "rank 2", "num_ranks=2"):
        read_loads(tmp_path, num_ranks=2)
    for path, missing in ((paths[0], 0), (paths[1], 1)):
        content = path.read_bytes()
        path.unlink()
        with refused(str(tmp_path), f"rank {missing} of 3 is missing"):
            read_loads(tmp_path)
        path.write_bytes(content)
    paths[2].write_bytes(rank_dump([], P2L))  # its name has the rank still
    with refused(str(tmp_path), "rank 2 has no forward pass 0"):
        read_loads(tmp_path)
    paths[0].unlink()
    paths[2].unlink()
    with refused(str(paths[1]), "rank 0 of 2 is missing", "folder"):
        read_loads(tmp_path)


def test_a_missing_pass_is_named(tmp_path):
    paths = write_ranks(tmp_path, SLOTS, P2L)
    records = rank_records(1, SLOTS[:, 1])
    paths[1].write_bytes(rank_dump(records[:2] + records[3:], P2L))
    with refused(str(tmp_path), "rank 1 has no forward pass 2"):
        read_loads(tmp_path)


def test_dumps_of_several_times_are_joined(tmp_path):
    write_ranks(tmp_path, SLOTS[2:], P2L, first_pass=12)
    write_ranks(tmp_path, SLOTS[:2], P2L, first_pass=10, time=LATER)
    found = read_loads(tmp_path)
    np.testing.assert_array_equal(found.steps, PASSES)
    assert_same([found.phy2log], [P2L], "the map")
    later = write_ranks(tmp_path, SLOTS[:1], P2L, first_pass=16, time=LATER + 9)
    later[2].unlink()
    with refused(str(tmp_path), "rank 2 has no forward pass 16"):
        read_loads(tmp_path)
    write_ranks(tmp_path, SLOTS[:1], P2L, first_pass=14, time=LATER + 9)
    with refused(str(LATER + 9), "forward pass 14 of rank 1 comes twice"):
        read_loads(tmp_path)


def test_each_dump_is_added_up_by_its_own_map(tmp_path):
    other = P2L[:, ::-1]
    write_ranks(tmp_path, SLOTS[:2], P2L)
    write_ranks(tmp_path, SLOTS[2:], other, first_pass=2, time=LATER)
    found = read_loads(tmp_path)
    expected = [PASSES[:2], of_experts(SLOTS[2:].sum(axis=1), other)]
    np.testing.assert_array_equal(found.steps, np.concatenate(expected))
    assert (found.phy2log, found.num_hidden_layers) == (None, 3)
    assert ["its own map" in note for note in found.notes] == [True]
    write_ranks(tmp_path, SLOTS[:0], other, time=LATER)  # a map under which nothing was counted
    found = read_loads(tmp_path)
    assert (found.notes, found.num_steps) == ((), 2)
    assert_same([found.phy2log], [P2L], "the map")


def test_ranks_of_different_maps_are_added_up(tmp_path):
    other = P2L[:, ::-1]
    for rank, p2l in enumerate([P2L, other, P2L]):
        records = rank_records(rank, SLOTS[:, rank])
        (tmp_path / f"{rank}.pt").write_bytes(rank_dump(records, p2l))
    expected = [of_experts(SLOTS[:, 1], other), of_experts(SLOTS[:, [0, 2]].sum(axis=1), P2L)]
    np.testing.assert_array_equal(read_loads(tmp_path).steps, sum(expected))


def test_rows_are_all_layers(tmp_path):
    for name, (suffix, write) in SAMPLES.items():
        path = tmp_path / f"{name}{suffix}"
        write(path, COUNTS)
        assert read_loads(path).num_hidden_layers == 3
        with refused(str(path), "leave moe_layer_ids out"):
            read_loads(path, moe_layer_ids=[4, 5, 6])


def test_a_plan_in_use_is_not_needed(tmp_path):
    write_ranks(tmp_path, SLOTS, P2L)
    with refused(str(tmp_path), "leave current out"):
        read_loads(tmp_path, current=in_order_plan(3, Topology(4, 6, 3)))


def test_parts_that_say_nothing_of_loads_may_hold_anything(write):
    record = rank_records(0, SLOTS[:1, 0])[0]
    record["misc_objects"] = [{"layer_id": 1, "num_tokens_per_rank": [1, (2, None), {"x": "y"}]}]
    found = read_loads(write(rank_dump([record], P2L, more={"a": [P2L, "text"]})))
    assert_same([found.load], [of_experts(SLOTS[0, 0], P2L)], "one pass")


def changed(**fields):
    """A dump of one rank, of which the second record is another; ``...`` removes a field."""
    records = rank_records(0, SLOTS[:, 0])
    records[1] = {k: v for k, v in (records[1] | fields).items() if v is not ...}
    return rank_dump(records, P2L)


CHOICES = choices_of(SLOTS[1, 0])

DUMPS = {
    "no map": (torch_zip({"records": []}), ["no last_physical_to_logical_map"]),
    "a map of one axis": (rank_dump(rank_records(0, SLOTS[:, 0]), P2L[0]), ["(6,)", "[layers"]),
    "a map of floats": (rank_dump([], P2L * 1.0), ["float64", "integers"]),
    "an expert below 0": (
        rank_dump(rank_records(0, SLOTS[:, 0]), P2L - 1),
        ["last_physical_to_logical_map holds -1 in slot 0 of row 0"],
    ),
    "an expert without a slot": (
        rank_dump(rank_records(0, SLOTS[:, 0]), np.where(P2L == 2, 1, P2L)),
        ["no slot for expert 2 in row 0"],
    ),
    "no records": (rank_dump([], P2L), ["no records", "requests"]),
    "all zero": (rank_dump(rank_records(0, 0 * SLOTS[:, 0]), P2L), ["are zero", "requests"]),
    "records that are no list": (rank_dump({"a": 1}, P2L), ["no list"]),
    "a record that is no dict": (rank_dump([3], P2L), ["record 0 is no dict"]),
    "no pass": (changed(forward_pass_id=...), ["record 1 has no forward_pass_id"]),
    "a pass that is no number": (changed(forward_pass_id="1"), ["forward_pass_id of record 1"]),
    "no rank": (changed(rank=...), ["record 1 has no rank"]),
    "a negative rank": (changed(rank=-1), ["rank of record 1", "at least 0"]),
    "a rank in a million": (changed(rank=1 << 20), ["rank 1 of 1048577 is missing"]),
    "a rank beyond": (changed(rank=1 << 21), ["at most 1048576"]),
    "another rank": (changed(rank=1), ["rank 1 has no forward pass 0"]),
    "another gatherer": (changed(gatherer_key="child_a"), ["record 1", "'child_a'"]),
    "a pass twice": (changed(forward_pass_id=0), ["forward pass 0 of rank 0 comes twice"]),
    "neither counts nor choices": (
        changed(global_physical_count=...), ["record 1 has neither", "topk_ids_of_layer"],
    ),
    "counts of other slots": (
        changed(global_physical_count=SLOTS[1, 0, :, 1:]), ["record 1", "(3, 5)", "(3, 6)"],
    ),
    "a negative count": (
        changed(global_physical_count=SLOTS[1, 0] - 9), ["count of record 1[0, 0]", "not negative"],
    ),
    "an infinite count": (
        changed(global_physical_count=np.full(P2L.shape, np.inf)), ["record 1[0, 0] = inf"],
    ),
    "counts beyond": (
        changed(global_physical_count=np.full(P2L.shape, 1e308)), ["layer 0"],
    ),
    "text": (changed(global_physical_count=["a"]), ["real number"]),
    "choices of one axis": (
        changed(global_physical_count=..., topk_ids_of_layer=CHOICES[0, 0]), ["record 1", "(8,)"],
    ),
    "choices of fewer layers": (
        changed(global_physical_count=..., topk_ids_of_layer=CHOICES[1:]), ["of 3 layers"],
    ),
    "choices of floats": (
        changed(global_physical_count=..., topk_ids_of_layer=CHOICES * 1.0), ["float64"],
    ),
    "a slot that is not there": (
        changed(global_physical_count=..., topk_ids_of_layer=CHOICES + 1),
        ["the slot 6", "6 slots"],
    ),
    "a slot below padding": (
        changed(global_physical_count=..., topk_ids_of_layer=CHOICES - 1), ["the slot -2"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DUMPS)
def test_bad_dumps_of_passes_are_refused(kind, write):
    content, parts = DUMPS[kind]
    path = write(content, "x.pt")
    with refused(str(path), *parts):
        read_loads(path)


def test_dumps_of_other_sizes_are_refused(tmp_path, write):
    write(rank_dump(rank_records(0, SLOTS[:, 0]), P2L), "0.pt")
    second = write(rank_dump(rank_records(1, SLOTS[:, 1, :2]), P2L[:2]), "1.pt")
    with refused(str(second), "(2, 6)", "(3, 6)", "one recording"):
        read_loads(tmp_path)
    write(rank_dump(rank_records(1, SLOTS[:, 1]), P2L % 3), "1.pt")
    with refused(str(tmp_path), "3 and 4 experts"):
        read_loads(tmp_path)
    write(stat_dump(COUNTS), "1.pt")
    with refused(str(second), "mode"):
        read_loads(tmp_path)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_for_the_fuzz_are_sound(name, tmp_path):
    suffix, write = SAMPLES[name]
    path = tmp_path / f"sample{suffix}"
    write(path, COUNTS)
    assert_same([read_loads(path).load], [COUNTS.sum(axis=0).astype(float)], name)


# ---------------------------------------------------------------------------------------------
# Maps
# ---------------------------------------------------------------------------------------------

PLAN = make_plan(COUNTS[0, 1:], num_replicas=8, num_gpus=4, moe_layer_ids=[1, 3])


def test_a_map_has_all_layers_and_exactly_one_key(tmp_path):
    path = tmp_path / "a plan.json"
    written = write_plan(PLAN, path, "sglang", num_hidden_layers=5)
    content = json.loads(path.read_text())
    assert list(content) == ["physical_to_logical_map"]
    trivial = [0, 1, 2, 3, 4, 0, 1, 2]
    first, second = PLAN.phy2log.tolist()
    assert content["physical_to_logical_map"] == [trivial, first, trivial, second, trivial]
    assert written.start == (
        f"--init-expert-location '{path}' --ep-num-redundant-experts 3 --ep-size 4"
    )
    assert written.notes[-1] == "layers that are not planned, and hold the experts in order: 3"
    again = read_plan(path, num_gpus=4, moe_layer_ids=[1, 3])
    np.testing.assert_array_equal(again.phy2log, PLAN.phy2log)
    assert (again.policy, again.topology) == ("sglang", PLAN.topology)


def test_what_sglang_would_take_in_silence_is_not_written(tmp_path):
    path = tmp_path / "plan.json"
    with refused("SGLang", "num_hidden_layers", "61"):
        write_plan(PLAN, path, "sglang")
    with refused("num_hidden_layers=3", "layer 3"):
        write_plan(PLAN, path, "sglang", num_hidden_layers=3)
    unequal = in_order_plan(2, Topology(5, 8, 3, gpu_slots=[3, 3, 2]))
    with refused("the GPUs differ in slots"):
        write_plan(unequal, path, "sglang", num_hidden_layers=2)
    gone = make_plan(COUNTS[0, 1:], Topology(5, 8, 4, active_gpus=[0, 1, 2]), policy="refined")
    with refused("empty slots", "SGLang"):
        write_plan(gone, path, "sglang", num_hidden_layers=2)
    with refused(str(path.with_suffix(".pt")), "unknown file suffix"):
        write_plan(PLAN, path.with_suffix(".pt"), "sglang", num_hidden_layers=4)
    with refused("suffix .JSON", "write .json"):
        write_plan(PLAN, path.with_suffix(".JSON"), "sglang", num_hidden_layers=4)
    assert not list(tmp_path.iterdir())


def test_both_keys_are_read(write):
    content = {"physical_to_logical_map": P2L.tolist(), "logical_count": COUNTS[0].tolist()}
    tensors = {"physical_to_logical_map": P2L, "logical_count": COUNTS[0]}
    for path in (write(json.dumps(content).encode(), "x"), write(torch_zip(tensors), "x.pt")):
        np.testing.assert_array_equal(read_loads(path).load, COUNTS[0])
        plan = read_plan(path, num_gpus=3)
        assert_same([plan.phy2log], [P2L], "the map")
        assert plan.topology == Topology(4, 6, 3)


def as_json(table):
    return json.dumps({"physical_to_logical_map": table}).encode()


def edited(row, slot, expert):
    table = P2L.copy()
    table[row, slot] = expert
    return table


MAPS = {
    "an empty slot": (edited(1, 2, -1), ["slot 2 of row 1 holds -1", "0 .. 3"]),
    "an expert without a slot": (edited(0, 3, 2), ["expert 3"]),
    "one more expert": (edited(2, 1, 4), ["expert 4"]),
    "more experts than slots": (edited(2, 1, 6), ["num_replicas=6", "num_experts=7"]),
    "an expert beyond all": (edited(2, 1, 1 << 40), ["num_experts"]),
    "floats": (P2L * 1.5, ["float64", "integers"]),
    "one axis": (P2L[0], []),
    "three axes": (P2L[None], ["(1, 3, 6)"]),
    "no rows": (P2L[:0], []),
}


@pytest.mark.parametrize("kind", MAPS)
def test_bad_maps_are_refused(kind, write):
    table, parts = MAPS[kind]
    tensors = torch_zip({"physical_to_logical_map": table})
    for path in (write(as_json(table.tolist()), "x"), write(tensors, "x.pt")):
        with refused(str(path), *parts):
            read_plan(path, num_gpus=3)


def test_maps_that_do_not_fit_are_refused(tmp_path, write):
    path = write(as_json(P2L.tolist()), "x.json")
    with refused(str(path), "num_gpus"):
        read_plan(path)
    with refused(str(path), "num_gpus=4", "6 slots"):
        read_plan(path, num_gpus=4)
    with refused(str(path), "no layer 3"):
        read_plan(path, num_gpus=3, moe_layer_ids=[1, 3])
    with refused(str(path), "logical_count"):
        read_loads(path)
    for content in (as_json(3), as_json(None), as_json([["a"]]), as_json([[1, 2], [3]])):
        with refused(str(path), ""):
            read_plan(write(content, "x.json"), num_gpus=3)
    for content in (stat_dump(COUNTS), changed()):
        with refused("x.pt", 'no key "physical_to_logical_map"'):
            read_plan(write(content, "x.pt"), num_gpus=3)
    with refused(str(tmp_path), 'no key "physical_to_logical_map"'):
        read_plan(tmp_path, num_gpus=3)


def test_a_plan_that_is_written_for_sglang_comes_back(tmp_path):
    path = tmp_path / "plan.json"
    for seed in range(5):
        load = np.random.default_rng(seed).integers(1, 99, (3, 12))
        plan = make_plan(load, num_replicas=16, num_gpus=4, policy="refined")
        write_plan(plan, path, "sglang", num_hidden_layers=3)
        again = read_plan(path, num_gpus=4)
        np.testing.assert_array_equal(again.phy2log, plan.phy2log)
        assert (again.moe_layer_ids, again.topology) == ((0, 1, 2), plan.topology)


# ---------------------------------------------------------------------------------------------
# With torch itself, where it is installed
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [False, True])
def test_what_torch_saves_is_read(old, tmp_path):
    torch = pytest.importorskip("torch")
    save = lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=not old)  # noqa: E731
    save({"rank": 0, "logical_count": torch.from_numpy(COUNTS)}, tmp_path / "s.pt")
    assert_same([read_loads(tmp_path / "s.pt").load], [COUNTS.sum(axis=0).astype(float)], "stat")
    save({"physical_to_logical_map": torch.from_numpy(P2L)}, tmp_path / "m.pt")
    assert_same([read_plan(tmp_path / "m.pt", num_gpus=3).phy2log], [P2L], "the map")
    folder = tmp_path / "ranks"
    folder.mkdir()
    for rank in range(3):
        records = [
            record | {"global_physical_count": torch.from_numpy(record["global_physical_count"])}
            for record in rank_records(rank, SLOTS[:, rank])
        ]
        content = {"records": records, "last_physical_to_logical_map": torch.from_numpy(P2L)}
        save(content, folder / f"{NAME}_17.5_{rank}.pt")
    np.testing.assert_array_equal(read_loads(folder).steps, PASSES)
