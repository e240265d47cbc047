"""TensorRT-LLM: its statistics as loads, and its load balancer's YAML as plans."""

import gzip
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_samples import (
    safetensors_bytes,
    write_expert_statistic,
    write_load_balancer,
)
from recorded import INTEROP, needs_interop
from support import assert_same, refused

from eplb_np import Topology, in_order_plan, make_plan
from eplb_np._files import yaml_text
from eplb_np.io import read_loads, read_plan, write_plan

COUNTS = np.random.default_rng(1).integers(1, 30, (3, 2, 8))
LAYERS = [3, 5]


@pytest.fixture
def folder(tmp_path):
    write_expert_statistic(tmp_path / "statistic", COUNTS, LAYERS, num_ranks=3)
    return tmp_path / "statistic"


def test_ranks_are_added_up(folder):
    found = read_loads(folder)
    assert found.format == "tensorrt-llm"
    assert_same([found.steps, found.load], [COUNTS.astype(float), COUNTS.sum(axis=0) + 0.0], "")
    assert (found.moe_layer_ids, found.dense_layer_ids) == (LAYERS, [0, 1, 2, 4])
    assert (found.num_hidden_layers, found.num_steps) == (None, 3)
    assert_same([read_loads(folder, num_ranks=3, num_experts=8).load], [found.load], "asked")


@given(
    st.integers(1, 4), st.sets(st.integers(0, 60), min_size=1, max_size=4), st.integers(1, 5),
    st.integers(1, 12), st.integers(0, 10**6),
)  # fmt: skip
def test_any_statistics(tmp_path_factory, steps, layers, experts, ranks, first):
    counts = np.random.default_rng(first).integers(1, 30, (steps, len(layers), experts))
    folder = tmp_path_factory.mktemp("any")
    write_expert_statistic(folder, counts, sorted(layers), ranks, first)
    found = read_loads(folder)
    assert_same([found.windows], [counts.astype(float)], "statistics")
    assert found.moe_layer_ids == sorted(layers)


@needs_interop
def test_the_sample():
    """The numbers were added up by the vendor's own script."""
    found = read_loads(INTEROP / "trtllm_stats")
    assert found.load.tolist() == [
        [11, 6, 6, 12, 12, 8, 7, 10], [11, 13, 3, 9, 3, 11, 8, 14], [7, 7, 9, 14, 11, 10, 9, 5],
    ]  # fmt: skip
    assert found.steps[0].tolist() == [
        [3, 1, 1, 7, 4, 3, 3, 2], [6, 5, 1, 1, 1, 4, 2, 4], [4, 2, 2, 5, 4, 4, 2, 1],
    ]  # fmt: skip
    assert (found.moe_layer_ids, found.num_steps) == ([3, 4, 5], 3)


def test_files_that_look_alike_are_left_alone(folder):
    for name in ("cooccurrence_rank0", "token_selected_experts_rank0", "rank0_raw", "xrank9"):
        (folder / f"{name}.safetensors").write_bytes(b"?")
    assert_same([read_loads(folder).steps], [COUNTS.astype(float)], "")


def test_packed_files(folder):
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert_same([read_loads(folder).steps], [COUNTS.astype(float)], "")


def tensors(counts=COUNTS, layers=LAYERS, first=100):
    return {
        f"{first + i}_{layer}": counts[i, row]
        for i in range(len(counts))
        for row, layer in enumerate(layers)
    }


def without(*names):
    return {name: value for name, value in tensors().items() if name not in names}


def change(folder, rank, values):
    (folder / f"rank{rank}.safetensors").write_bytes(safetensors_bytes(values))


BAD_FOLDERS = {
    "no meta": (lambda f: (f / "meta_info.json").unlink(), ["meta_info.json"]),
    "no experts": (lambda f: (f / "meta_info.json").write_text("{}"), ["num_experts"]),
    "null": (lambda f: (f / "meta_info.json").write_text("null"), ["meta_info.json"]),
    "text": (lambda f: (f / "meta_info.json").write_text('{"num_experts": "8"}'), ["'8'"]),
    "other experts": (
        lambda f: (f / "meta_info.json").write_text('{"num_experts": 9}'),
        ["rank0.safetensors", "(8,)", "9 experts"],
    ),
    "no rank 0": (lambda f: (f / "rank0.safetensors").unlink(), ["rank 0", "of 3"]),
    "no rank 1": (lambda f: (f / "rank1.safetensors").unlink(), ["rank 1", "of 3"]),
    "fewer than ep_size": (
        lambda f: (f / "meta_info.json").write_text('{"num_experts": 8, "ep_size": 4}'),
        ["rank 3", "of 4"],
    ),
    "no ranks": (
        lambda f: [(f / f"rank{i}.safetensors").unlink() for i in range(3)], ["rank 0"],
    ),
    "a rank twice": (
        lambda f: (f / "rank1.safetensors.gz").write_bytes(b"?"), ["rank 1", "both"],
    ),
    "another name": (lambda f: change(f, 1, {"100": COUNTS[0, 0]}), ["rank1", "'100'"]),
    "no layer": (lambda f: change(f, 1, {"100_None": COUNTS[0, 0]}), ["'100_None'"]),
    "no tensors": (lambda f: change(f, 0, {}), ["rank0", "no tensors"]),
    "no tensors of a later rank": (lambda f: change(f, 2, {}), ["rank2", "no tensors"]),
    "an iteration is missing": (
        lambda f: change(f, 0, without("101_3", "101_5")), ["iteration 101", "100 to 102"],
    ),
    "a layer is missing": (
        lambda f: change(f, 0, without("101_5")), ["rank 0", "layer 5", "iteration 101"],
    ),
    "a layer of a later rank": (
        lambda f: change(f, 2, without("102_3")), ["rank 2", "layer 3", "iteration 102"],
    ),
    "iterations of a later rank": (
        lambda f: change(f, 2, tensors(first=101)), ["rank 2", "layer 3", "iteration 100"],
    ),
    "more iterations": (
        lambda f: change(f, 1, {**tensors(), "103_3": COUNTS[0, 0]}),
        ["rank 1", "iteration 103", "rank 0"],
    ),
    "more layers": (
        lambda f: change(f, 1, {**tensors(), "100_4": COUNTS[0, 0]}), ["rank 1", "layer 4"],
    ),
    "experts of a later rank": (
        lambda f: change(f, 1, tensors(COUNTS[..., :4])), ["rank1", "(4,)", "8 experts"],
    ),
    "two axes": (lambda f: change(f, 1, tensors(COUNTS[..., None])), ["rank1", "(8, 1)"]),
    "negative": (lambda f: change(f, 1, tensors(COUNTS - 20)), ["rank1", "'100_", "negative"]),
    "NaN": (lambda f: change(f, 1, tensors(COUNTS * np.nan)), ["rank1", "nan"]),
    "infinite": (lambda f: change(f, 1, tensors(COUNTS * np.inf)), ["inf"]),
    "no safetensors": (lambda f: (f / "rank1.safetensors").write_bytes(b"?"), ["rank1", "text"]),
    "a folder": (
        lambda f: ((f / "rank1.safetensors").unlink(), (f / "rank1.safetensors").mkdir()),
        ["rank1", "a folder"],
    ),
    "a layer beyond all": (
        lambda f: change(f, 0, {"100_99999999": COUNTS[0, 0]}), ["100_99999999"],
    ),
    "all zero": (
        lambda f: [change(f, i, tensors(0 * COUNTS)) for i in range(3)], ["zero"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FOLDERS)
def test_bad_statistics_are_refused(kind, folder):
    damage, parts = BAD_FOLDERS[kind]
    damage(folder)
    with refused(str(folder), *parts):
        read_loads(folder)


def test_what_the_caller_knows_is_compared(folder):
    with refused("rank 3", "of 4"):
        read_loads(folder, num_ranks=4)
    with refused("3 ranks, not 2"):
        read_loads(folder, num_ranks=2)
    with refused("num_experts=16", "8 experts"):
        read_loads(folder, num_experts=16)
    with refused("moe_layer_ids"):
        read_loads(folder, moe_layer_ids=[1, 2])
    with refused("rank0.safetensors", "give the folder"):
        read_loads(folder / "rank0.safetensors")
    with refused(str(folder), "read_loads"):
        read_plan(folder)


def test_sums_are_exact_beyond_int64(folder):
    large = tensors(np.full(COUNTS.shape, 1 << 62))
    for rank in range(3):
        change(folder, rank, large)
    assert read_loads(folder).steps[0, 0, 0] == 3 * 2.0**62


# ---------------------------------------------------------------------------------------------
# Plans
# ---------------------------------------------------------------------------------------------

PLAN = make_plan(COUNTS, num_replicas=12, num_gpus=4, moe_layer_ids=LAYERS)


def test_a_plan_comes_back(tmp_path):
    path = tmp_path / "plan.yaml"
    written = write_plan(PLAN, path, "tensorrt-llm")
    assert str(path) in written.start
    assert "moe_config" in written.start
    assert "\n" not in written.start
    found = read_plan(path, num_gpus=4)
    assert_same([found.phy2log], [PLAN.phy2log], "plan")
    assert (list(found.moe_layer_ids), found.policy) == (LAYERS, "tensorrt-llm")
    assert read_plan(path, num_gpus=4, moe_layer_ids=[5]).moe_layer_ids == (5,)


def test_a_plan_has_integer_keys_and_no_others(tmp_path):
    yaml = pytest.importorskip("yaml")
    path = tmp_path / "plan.yml"
    write_plan(PLAN, path, "tensorrt-llm")
    assert yaml.safe_load(path.read_text()) == {
        "num_slots": 12,
        "initial_global_assignments": dict(zip(LAYERS, PLAN.phy2log.tolist(), strict=True)),
        "layer_updates_per_iter": 0,
    }
    assert len(path.read_text().splitlines()) == 3 + len(LAYERS)


def test_the_vendors_order_of_keys(tmp_path):
    path = tmp_path / "moe_load_balancer.yaml"
    write_load_balancer(path, PLAN.phy2log, LAYERS)
    assert_same([read_plan(path, num_gpus=4).phy2log], [PLAN.phy2log], "plan")
    path.write_bytes(gzip.compress(b"# by hand\n---\n" + path.read_bytes() + b"ep_size: 4\n"))
    assert_same([read_plan(path).phy2log], [PLAN.phy2log], "plan, with a comment and ep_size")


@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 6), st.integers(0, 99))
def test_any_plan(tmp_path_factory, layers, experts, redundant, seed):
    load = np.random.default_rng(seed).integers(1, 9, (layers, experts))
    ids = sorted(np.random.default_rng(seed).choice(99, layers, replace=False).tolist())
    plan = make_plan(load, num_replicas=experts + redundant, num_gpus=1, moe_layer_ids=ids)
    path = tmp_path_factory.mktemp("any") / "plan.yaml"
    write_plan(plan, path, "tensorrt-llm")
    found = read_plan(path, num_gpus=1)
    assert_same([found.phy2log], [plan.phy2log], "plan")
    assert found.moe_layer_ids == tuple(ids)


def test_layers_in_any_order(tmp_path):
    path = tmp_path / "plan.yaml"
    text = "initial_global_assignments:\n  7: [0, 1]\n  2:\n  - 1\n  - 0\nnum_slots: 2\n"
    path.write_text(text)
    found = read_plan(path, num_gpus=2)
    assert (found.phy2log.tolist(), found.moe_layer_ids) == ([[1, 0], [0, 1]], (2, 7))


def plan_text(slots="2", rows="{1: [0, 1]}", more=""):
    return f"num_slots: {slots}\ninitial_global_assignments: {rows}\n{more}"


BAD_PLANS = {
    "no slots": ("initial_global_assignments: {1: [0]}\n", ["num_slots"]),
    "no layers": ("num_slots: 2\nlayer_updates_per_iter: 2\n", ["no layers"]),
    "empty layers": (plan_text(rows="{}"), ["no layers"]),
    "null": (plan_text(rows=""), ["no layers"]),
    "other slots": (plan_text("3"), ["layer 1", "2 slots", "3"]),
    "fewer slots": (plan_text("1"), ["layer 1", "2 slots", "is 1"]),
    "text keys": (plan_text(rows="{'1': [0, 1]}"), ["'1'", "ids of layers"]),
    "a negative key": (plan_text(rows="{-1: [0, 1]}"), ["'-1'"]),
    "a huge key": (plan_text(rows="{9999999: [0, 1]}"), ["9999999"]),
    "text": (plan_text(rows="{1: [0, a]}"), ["layer 1"]),
    "a quoted expert": (plan_text(rows="{1: [0, '1']}"), ["layer 1"]),
    "an octal": (plan_text(rows="{1: [0, 01]}"), ["layer 1"]),
    "a negative expert": (plan_text(rows="{1: [0, -1]}"), ["layer 1"]),
    "a float": (plan_text(rows="{1: [0, 1.0]}"), ["layer 1"]),
    "null expert": (plan_text(rows="{1: [0, ]}"), ["layer 1", "1 slots"]),
    "a list in a row": (plan_text(rows="{1: [0, [1]]}"), ["layer 1"]),
    "ragged": (plan_text(rows="{1: [0, 1], 2: [0]}"), ["layer 2", "1 slots"]),
    "an absent expert": (plan_text("3", "{1: [0, 2, 2]}"), ["expert 1"]),
    "a huge expert": (plan_text(rows="{1: [0, 1000000000000000]}"), []),
    "digits": (plan_text(rows="{1: [0, %s]}" % ("9" * 5000)), ["layer 1"]),
    "a layer twice": (plan_text(rows="{1: [0, 1], 1: [1, 0]}"), ["key 1 again"]),
    "another key": (plan_text(more="extra: 1\n"), ["'extra'"]),
    "an alias": (plan_text(rows="{1: &a [0, 1], 2: *a}"), ["anchor"]),
    "an anchor": (plan_text(rows="{1: &a [0, 1]}"), ["line 2", "anchor"]),
    "an alias alone": (plan_text(rows="*a"), ["alias"]),
    "a tag": (plan_text(rows="!!python/object/apply:os.system [x]"), ["tag"]),
    "a tagged key": (plan_text(rows="{!!int 1: [0, 1]}"), ["tag"]),
    "a list as a key": (plan_text(rows="{[1]: [0, 1]}"), ["key that is a list"]),
    "deep": (plan_text(rows="[" * 100), ["4 lists"]),
    "two documents": (plan_text(more="---\na: 1\n"), ["single document"]),
    "cut": (plan_text(rows="{1: [0, 1"), ["line 3"]),
    "a bad character": (plan_text(more="# \x01\n"), []),
    "long": (plan_text(more="#" * (1 << 22)), ["4 MiB"]),
    "no GPUs": (plan_text(), ["num_gpus"]),
    "a bad ep_size": (plan_text(more="ep_size: two\n"), ["ep_size"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_PLANS)
def test_bad_plans_are_refused(kind, tmp_path):
    pytest.importorskip("yaml")
    text, parts = BAD_PLANS[kind]
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    with refused(str(path), *parts):
        read_plan(path, num_gpus=None if "GPUs" in kind or "ep_size" in kind else 1)


def test_other_text_is_no_plan(tmp_path):
    path = tmp_path / "text"
    path.write_text("a num_slots: 3\n")
    with refused("no known format"):
        read_plan(path)
    path.write_text(plan_text())
    with refused("not loads"):
        read_loads(path)


def test_without_a_library_of_yaml(tmp_path, monkeypatch):
    """Writing needs none; the error of reading says what to install."""
    monkeypatch.setitem(sys.modules, "yaml", None)
    path = tmp_path / "plan.yaml"
    write_plan(PLAN, path, "tensorrt-llm")
    with refused("pip install 'eplb-np[yaml]'"):
        read_plan(path, num_gpus=4)


def test_without_the_compiled_parser(tmp_path, monkeypatch):
    yaml = pytest.importorskip("yaml")
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    path = tmp_path / "plan.yaml"
    write_plan(PLAN, path, "tensorrt-llm")
    assert_same([read_plan(path, num_gpus=4).phy2log], [PLAN.phy2log], "plan")
    path.write_text(plan_text(more="#" * (1 << 20)))
    with refused("1 MiB"):
        read_plan(path, num_gpus=1)
    monkeypatch.setattr(yaml_text, "MOST_EVENTS_IN_PYTHON", 12)
    path.write_text(plan_text())
    with refused("12 values"):
        read_plan(path, num_gpus=1)


@pytest.mark.parametrize(
    ("topology", "parts"),
    [
        (Topology(1025, 1025, 1), ["1025 experts", "1024"]),
        (Topology(8, 1 << 15, 1), ["32768 slots", "32767"]),
    ],
)
def test_what_the_engine_cannot_hold_is_refused(topology, parts, tmp_path):
    plan = in_order_plan(1, topology)
    with refused("TensorRT-LLM", *parts):
        write_plan(plan, tmp_path / "plan.yaml", "tensorrt-llm")
