"""Megatron-LM: tokens per expert, and router traces."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_samples import write_lines, write_router_trace, write_tokens_per_expert
from support import assert_same, refused

from eplb_np.io import megatron_steps, read_loads

COUNTS = np.random.default_rng(1).integers(1, 30, (3, 2, 8))
COUNTS[..., -1] += COUNTS.sum(axis=-1) % 2  # two experts for each token
LAYERS = [1, 3]
WRITERS = {"megatron": write_tokens_per_expert, "megatron-trace": write_router_trace}
PREFIX = {"megatron": "rank", "megatron-trace": "router_trace_rank"}
STEP = {"megatron": "iter", "megatron-trace": "step"}


@pytest.fixture(params=WRITERS)
def kind(request):
    return request.param


@pytest.fixture
def folder(kind, tmp_path):
    WRITERS[kind](tmp_path / "recorded", COUNTS, LAYERS)
    return tmp_path / "recorded"


@pytest.fixture
def tokens(tmp_path):
    """Of two ranks with two replicas each."""
    write_tokens_per_expert(tmp_path / "tokens", COUNTS, LAYERS, replicas=2)
    return tmp_path / "tokens"


@pytest.fixture
def trace(tmp_path):
    write_router_trace(tmp_path / "trace", COUNTS, LAYERS)
    return tmp_path / "trace"


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def has_note(found, *parts):
    return any(all(part in note for part in parts) for note in found.notes)


def test_what_was_written_comes_back(kind, folder):
    found = read_loads(folder)
    assert found.format == kind
    assert_same([found.steps], [COUNTS.astype(float)], kind)
    assert (found.moe_layer_ids, found.num_hidden_layers) == (LAYERS, None)
    assert has_note(found, "numbered from 0 within a pipeline stage")
    assert_same([read_loads(folder, num_ranks=2, num_experts=8).steps], [found.steps], kind)


@given(
    st.sampled_from(sorted(WRITERS)), st.integers(1, 4),
    st.sets(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 999),
)  # fmt: skip
def test_any_recording(tmp_path_factory, kind, steps, layers, local, ranks, seed):
    counts = np.random.default_rng(seed).integers(1, 30, (steps, len(layers), local * ranks))
    counts[..., -1] += counts.sum(axis=-1) % 2
    folder = tmp_path_factory.mktemp("any")
    WRITERS[kind](folder, counts, sorted(layers), num_ranks=ranks)
    found = read_loads(folder)
    assert_same([found.windows], [counts.astype(float)], kind)
    assert found.moe_layer_ids == sorted(layers)


def test_packed_files(folder):
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert_same([read_loads(folder).steps], [COUNTS.astype(float)], "")


def test_lines_in_any_order(kind, folder):
    for path in folder.iterdir():
        records = lines_of(path)
        np.random.default_rng(2).shuffle(records)
        write_lines(path, records)
    assert_same([read_loads(folder).steps], [COUNTS.astype(float)], kind)


def test_a_single_file(kind, tmp_path):
    WRITERS[kind](tmp_path, COUNTS[:1], LAYERS[:1], num_ranks=1)
    path = tmp_path / f"{PREFIX[kind]}0.jsonl"
    found = read_loads(path, num_experts=8)
    assert (found.format, found.load.tolist()) == (kind, COUNTS[0, :1].tolist())
    write_lines(path, lines_of(path)[:1])  # which is JSON, too
    assert read_loads(path).load.tolist() == COUNTS[0, :1].tolist()


def test_steps_that_are_cut_off_at_the_end_are_left_out(kind, folder):
    path = folder / f"{PREFIX[kind]}1.jsonl"
    records = [record for record in lines_of(path) if record.get("block") == "decoder"]
    write_lines(path, records[:-1])
    found = read_loads(folder)
    assert_same([found.steps], [COUNTS[:2].astype(float)], kind)
    assert has_note(found, "1 of 3", "not complete")
    write_lines(path, [records[0], records[3]])
    with refused("rank 1", "layer 3"):
        read_loads(folder)


def change(path, update, **where):
    """Update records with these values."""
    records = lines_of(path)
    for record in records:
        if where.items() <= record.items():
            record.update(update)
    write_lines(path, records)


FIRST = {"megatron": {"iter": 10, "layer": 1}, "megatron-trace": {"step": 0, "layer": 1}}
TABLE = {"megatron": "tpe", "megatron-trace": "top_indices"}


def dropped(path, **where):
    write_lines(path, [record for record in lines_of(path) if not where.items() <= record.items()])


def with_table(path, table, **where):
    """Give records another table, and say how many tokens it has."""
    change(path, {"tpe": table, "top_indices": table, "num_tokens": len(table)}, **where)


BAD = {
    "no rank 0": (lambda p, k: p.with_name(f"{PREFIX[k]}0.jsonl").unlink(), ["rank 0", "of 2"]),
    "a rank twice": (lambda p, k: p.with_suffix(".jsonl.gz").write_bytes(b""), ["rank 1", "both"]),
    "a hole": (lambda p, k: dropped(p, block="decoder", **FIRST[k]), ["rank 1", "layer 1"]),
    "other layers": (
        lambda p, k: change(p, {"layer": 2}, layer=3),
        ["rank 1", "1, 2", "1, 3", "pipeline stages", "folder of its own"],
    ),
    "fewer layers": (lambda p, k: dropped(p, layer=3), ["rank 1", "pipeline stages"]),
    "another block": (lambda p, k: change(p, {"block": "encoder"}), ["1.jsonl", "'encoder'"]),
    "a list for a block": (lambda p, k: change(p, {"block": []}), ["block=[]"]),
    "no table": (lambda p, k: change(p, {TABLE[k]: 3}), ["1.jsonl", "integers"]),
    "floats": (lambda p, k: with_table(p, [[1.0] * 4] * 3), ["1.jsonl", "integers"]),
    "bools": (lambda p, k: with_table(p, [[True] * 4]), ["integers"]),
    "three axes": (lambda p, k: with_table(p, [[[1] * 4]]), ["integers"]),
    "negative": (lambda p, k: with_table(p, [[1, 1, 1, -1]]), ["holds -1"]),
    "ragged": (lambda p, k: with_table(p, [[1, 2], [3]]), ["line 1", "rectangular"]),
    "a negative layer": (lambda p, k: change(p, {"layer": -1}), ["layer=-1"]),
    "a layer beyond all": (lambda p, k: change(p, {"layer": 1 << 20}), ["layer=1048576"]),
    "a text for a layer": (lambda p, k: change(p, {"layer": "1"}), ["layer='1'"]),
    "a step beyond all": (lambda p, k: change(p, {STEP[k]: 1 << 41}), ["too large"]),
    "no step": (lambda p, k: change(p, {STEP[k]: None}), ["1.jsonl", "without"]),
    "no JSON": (lambda p, k: p.write_text('{"a": 1}\n{"b": 2'), ["1.jsonl", "without"]),
    "cut": (lambda p, k: p.write_text(p.read_text()[:-9]), ["1.jsonl", "line"]),
    "a number in a line": (
        lambda p, k: p.write_text(p.read_text() + "3\n"), ["1.jsonl", "line", "int"],
    ),
    "binary": (lambda p, k: p.write_bytes(b"\xff" * 99), ["1.jsonl", "line 1"]),
    "a folder": (lambda p, k: (p.unlink(), p.mkdir()), ["1.jsonl", "folder"]),
    "empty": (lambda p, k: p.write_bytes(b""), ["no "]),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_recordings_are_refused(what, kind, folder):
    damage, parts = BAD[what]
    damage(folder / f"{PREFIX[kind]}1.jsonl", kind)
    with refused(str(folder), *parts):
        read_loads(folder)


def test_without_any_load(kind, folder):
    for path in folder.iterdir():
        with_table(path, [[0] * 4] if kind == "megatron" else [])
    with refused("all 2 layers are zero" if kind == "megatron" else ""):
        read_loads(folder)


def test_a_missing_last_rank(folder):
    with refused("rank 2", "of 3"):
        read_loads(folder, num_ranks=3)
    with refused("moe_layer_ids"):
        read_loads(folder, moe_layer_ids=[1, 2])


def test_the_beginning_must_have_load(kind, folder, monkeypatch):
    monkeypatch.setattr(megatron_steps, "WITHOUT_LOAD", 100)
    read_loads(folder)
    with_table(folder / f"{PREFIX[kind]}0.jsonl", [[0] * 4] if kind == "megatron" else [])
    with refused("no load"):
        read_loads(folder)


@pytest.mark.parametrize(("limit", "value"), [("MOST_ROWS", 5), ("MOST_COUNTS", 47)])
def test_more_counts_than_are_read(limit, value, folder, monkeypatch):
    monkeypatch.setattr(megatron_steps, limit, value + 1)
    read_loads(folder)
    monkeypatch.setattr(megatron_steps, limit, value)
    with refused("fewer steps"):
        read_loads(folder)


# ---------------------------------------------------------------------------------------------
# Tokens per expert
# ---------------------------------------------------------------------------------------------


def test_replicas_of_ranks_are_added_up(tokens):
    found = read_loads(tokens, num_experts=8)
    assert_same([found.steps], [COUNTS.astype(float)], "replicas")
    assert has_note(found, "2 replicas of 2 ranks with 4 experts")
    found = read_loads(tokens)
    assert found.load.shape == (2, 16)
    assert has_note(found, "one group of 16 experts", "give num_experts")
    for num_experts in (3, 6, 12, 32):
        with refused(f"num_experts={num_experts}", "4 ranks of 4 experts"):
            read_loads(tokens, num_experts=num_experts)


def test_the_folder_above(tokens):
    tokens.rename(tokens.with_name("tokens_per_expert"))
    (tokens.parent / "latest_checkpointed_iteration.txt").write_text("30")
    assert_same([read_loads(tokens.parent, num_experts=8).steps], [COUNTS.astype(float)], "above")
    (tokens.with_name("tokens_per_expert") / "rank2.jsonl").unlink()
    with refused("tokens_per_expert", "rank 2"):
        read_loads(tokens.parent)


def test_other_blocks_are_left_out(tokens):
    assert has_note(read_loads(tokens), "12 records of multi-token prediction")
    change(tokens / "rank0.jsonl", {"block": "mtp"})
    with refused("rank0.jsonl", "no records of layers of the decoder"):
        read_loads(tokens)


def test_what_a_restart_records_again_counts_once(tokens):
    for path in tokens.iterdir():
        before = path.read_text()
        change(path, {"tpe": [[9] * 4]})
        path.write_text("".join(path.read_text().splitlines(True)[3:]) + before)
    found = read_loads(tokens, num_experts=8)
    assert_same([found.steps], [COUNTS.astype(float)], "again")
    assert has_note(found, "16 records", "recorded again", "the last one counts")


def test_ranks_must_agree_in_experts(tokens):
    change(tokens / "rank1.jsonl", {"tpe": [[1, 2, 3]]}, layer=1)
    with refused("rank1.jsonl", "4 experts", "3"):
        read_loads(tokens)
    change(tokens / "rank1.jsonl", {"tpe": [[1, 2, 3]]})
    with refused("rank 1", "3 experts", "4"):
        read_loads(tokens)


def test_sums_are_exact_beyond_int64(tmp_path):
    write_lines(tmp_path / "rank0.jsonl", [{"iter": 1, "layer": 0, "tpe": [[(1 << 63) - 1]] * 4}])
    assert read_loads(tmp_path).load.tolist() == [[2.0**65]]


# ---------------------------------------------------------------------------------------------
# Router traces
# ---------------------------------------------------------------------------------------------


def test_experts_are_those_up_to_the_largest_id(trace):
    assert has_note(read_loads(trace), "largest id of an expert is 7", "8 experts")
    found = read_loads(trace, num_experts=11)
    assert found.load.shape == (2, 11)
    assert not found.load[:, 8:].any()
    assert not has_note(found, "largest")
    with refused("expert 7", "num_experts=7"):
        read_loads(trace, num_experts=7)


def test_microbatches_of_a_step_are_added_up(trace):
    for path in trace.iterdir():
        path.write_text(2 * path.read_text())
    assert_same([read_loads(trace).steps], [2.0 * COUNTS], "twice")


def test_ids_that_grow(tmp_path):
    rows = [
        {"step": i, "layer": 0, "top_indices": [[expert]]} for i, expert in enumerate([2, 0, 4])
    ]
    write_lines(tmp_path / "router_trace_rank0.jsonl", rows)
    found = read_loads(tmp_path)
    assert found.load.shape == (1, 5)
    assert found.steps.nonzero()[2].tolist() == [2, 0, 4]


def test_other_blocks_of_a_trace_are_left_out(trace):
    path = trace / "router_trace_rank0.jsonl"
    more = {"step": 0, "block": "mtp", "mtp_idx": 0, "layer": 9, "rank": 0, "top_indices": [[5]]}
    write_lines(path, [*lines_of(path), more])
    found = read_loads(trace)
    assert_same([found.steps], [COUNTS.astype(float)], "with another block")
    assert has_note(found, "1 records of multi-token prediction")


@pytest.mark.parametrize(
    ("update", "parts"),
    [
        ({"rank": 0}, ["rank 0", "of rank 1", "twice"]),
        ({"rank": None}, ["rank None"]),
        ({"num_tokens": 1}, ["num_tokens=1"]),
        ({"stage": "post_dispatch"}, ["'post_dispatch'"]),
        ({"top_indices": [[1 << 20, 0]], "num_tokens": 1}, ["expert 1048576"]),
        ({"top_indices": [[1 << 63, 0]], "num_tokens": 1}, ["integers"]),
    ],
)
def test_odd_traces_are_refused(update, parts, trace):
    change(trace / "router_trace_rank1.jsonl", update, layer=3)
    with refused("router_trace_rank1.jsonl", *parts):
        read_loads(trace)
