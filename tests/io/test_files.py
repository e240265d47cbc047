"""Files in and out: all of it, or an error in one line."""

import dataclasses
import io
import json
import pickle
import random

import numpy as np
import pytest
from support import assert_same, fewer, refused

from eplb_np import Plan, Topology, in_order_plan, make_plan
from eplb_np._files.atomic import write_atomically
from eplb_np.io.loads import read_loads

LOAD = np.random.default_rng(7).integers(0, 100, (5, 8)).astype(np.float64)
LOAD[[0, 3]] = 0  # dense layers
MOE, DENSE = [1, 2, 4], [0, 3]
STEPS = np.stack([LOAD, 2 * LOAD, 0 * LOAD])


def as_json(values):
    return json.dumps({"other": "ignored", "logical_count": values.tolist()}).encode()


def as_npy(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def as_npz(save=np.savez, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


FORMATS = {
    "json": (".json", as_json),
    "npy": (".npy", as_npy),
    "npz, by name": (".npz", lambda values: as_npz(logical_count=values, steps=np.arange(3))),
    "npz, single": (".npz", lambda values: as_npz(whatever=values)),
    "npz, compressed": (".npz", lambda values: as_npz(np.savez_compressed, logical_count=values)),
    "capitals": (".NPY", as_npy),
}


@pytest.fixture
def write(tmp_path):
    def write(content, suffix):
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content)
        return path

    return write


# ---------------------------------------------------------------------------------------------
# Loads
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_loads_of_every_format(kind, write):
    suffix, encode = FORMATS[kind]
    for values, expected in [(LOAD, LOAD), (LOAD[1:2], LOAD[1:2]), (STEPS, 3 * LOAD)]:
        recorded = read_loads(write(encode(values), suffix))
        moe = np.flatnonzero(expected.any(axis=1))
        assert_same([recorded.load], [expected[moe]], kind)
        assert recorded.moe_layer_ids == moe.tolist()
    assert (recorded.moe_layer_ids, recorded.dense_layer_ids) == (MOE, DENSE)


@pytest.mark.parametrize("dtype", ["int32", ">i8", "uint64", "float16", ">f4", "longdouble"])
def test_loads_of_every_dtype(dtype, write):
    recorded = read_loads(write(as_npy(np.asfortranarray(STEPS.astype(dtype))), ".npy"))
    assert_same([recorded.load], [3 * LOAD[MOE]], dtype)


def bad(layer, expert, value):
    values = LOAD.copy()
    values[layer, expert] = value
    return values


BAD_LOADS = {
    "NaN": (as_npy(bad(4, 2, np.nan)), ".npy", ["[4, 2] = nan", "layer 4, expert 2"]),
    "NaN in JSON": (as_json(bad(4, 2, np.nan)), ".json", ["[4, 2] = nan", "layer 4, expert 2"]),
    "infinite": (as_json(bad(1, 0, np.inf)), ".json", ["[1, 0] = inf", "finite"]),
    "negative": (as_npy(bad(1, 0, -3)), ".npy", ["[1, 0] = -3.0", "not negative"]),
    "a step undoes a negative": (
        as_npy(np.stack([5 + LOAD, bad(2, 6, -1)])), ".npy",
        ["logical_count[1][2, 6] = -1.0", "layer 2, expert 6"],
    ),
    "all zero": (as_npy(0 * LOAD), ".npy", ["all 5 layers are zero"]),
    "1-D": (as_npy(LOAD[1]), ".npy", ["(8,)", "[layers, experts]"]),
    "4-D": (as_npy(STEPS[None]), ".npy", ["(1, 3, 5, 8)", "[steps, layers, experts]"]),
    "no steps": (as_npy(STEPS[:0]), ".npy", ["(0, 5, 8)", "no empty axis"]),
    "no experts": (as_npy(LOAD[:, :0]), ".npy", ["(5, 0)", "no empty axis"]),
    "complex": (as_npy(LOAD + 0j), ".npy", ["complex128", "real number"]),
    "strings": (as_json(LOAD.astype(str)), ".json", ["real number"]),
    "ragged": (b'{"logical_count": [[1, 2], [3]]}', ".json", ["rectangular", "same length"]),
    "a number": (b'{"logical_count": 3}', ".json", ["()", "[layers, experts]"]),
    "nothing": (b'{"logical_count": null}', ".json", ["real number"]),
    "another key": (b'{"counts": [[1]]}', ".json", ['"logical_count"']),
    "a JSON list": (b"[[1, 2]]", ".json", ['"logical_count"']),
    "huge digits": (b'{"logical_count": [[' + b"9" * 9999 + b"]]}", ".json", []),
    "deep JSON": (b'{"logical_count": ' + b"[" * 100_000, ".json", ["recursion"]),
    "cut JSON": (as_json(LOAD)[:-3], ".json", ["delimiter"]),
    "no text": (bytes(range(128, 256)), ".json", ["decode"]),
    "no JSON": (as_npy(LOAD), ".json", []),
    "no npy": (as_json(LOAD), ".npy", []),
    "no npz": (as_json(LOAD), ".npz", []),
    "empty json": (b"", ".json", []),
    "empty npy": (b"", ".npy", []),
    "empty npz": (b"", ".npz", []),
    "npz of two": (as_npz(a=LOAD, b=LOAD), ".npz", ["['a', 'b']", '"logical_count"']),
    "npz of none": (as_npz(), ".npz", ["[]", '"logical_count"']),
    "a pickle": (pickle.dumps(LOAD), ".npy", ["pickle"]),
    "a pickle in npy": (as_npy(np.array([{}, LOAD], object)), ".npy", ["allow_pickle=False"]),
    "a pickle in npz": (as_npz(logical_count=LOAD.astype(object)), ".npz", ["allow_pickle=False"]),
    "more than there is": (
        as_npy(LOAD).replace(b"(5, 8)", b"(500000000000, 8)"), ".npy", []
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_LOADS)
def test_bad_load_files_are_refused(kind, write):
    content, suffix, parts = BAD_LOADS[kind]
    path = write(content, suffix)
    with refused(str(path), *parts):
        read_loads(path)


# ---------------------------------------------------------------------------------------------
# Plans
# ---------------------------------------------------------------------------------------------

SUFFIXES = [".json", ".npz"]
PLAN = dataclasses.replace(in_order_plan(3, Topology(8, 12, 4, 2, 4)), moe_layer_ids=MOE)


@pytest.fixture(params=SUFFIXES)
def saved(request, tmp_path):
    path = tmp_path / f"plan{request.param}"
    PLAN.save(path)
    return path


def test_a_saved_plan_comes_back(saved):
    assert Plan.load(saved) == PLAN
    assert Plan.load(str(saved)) == PLAN


def test_a_saved_plan_says_what_it_is(saved):
    if saved.suffix == ".json":
        header = json.loads(saved.read_text())
    else:
        header = json.loads(str(np.load(saved)["header"]))
    assert header["format"] == "eplb_np.plan"
    assert header["placement"] == "hierarchical"
    assert header["moe_layer_ids"] == MOE


def change_header(path, change):
    """Rewrite a saved plan."""
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays.pop("header")))
    content = header | arrays
    change(content)
    arrays = {name: content.pop(name) for name in arrays if name in content}
    np.savez(path, header=np.array(json.dumps(content)), **arrays)


@pytest.mark.parametrize(
    ("name", "value", "parts"),
    [
        ("format", "another", ["format 'another'", "'eplb_np.plan'"]),
        ("version", 99, ["version 99", "1"]),
        ("dtype", "float32", ["float32"]),
        ("dtype", "no such", ["no such"]),
        ("dtype", None, ["float64"]),
        ("topology", {"num_experts": 8}, ["num_replicas"]),
        ("topology", {"num_experts": 8, "num_replicas": 13, "num_gpus": 4}, ["num_replicas=13"]),
        ("topology", {"num_experts": 9, "num_replicas": 12, "num_gpus": 4}, ["expert 8"]),
        ("topology", [1, 2], []),
        ("topology", {"two\nlines": 1}, ["two lines"]),
        ("moe_layer_ids", [0], ["moe_layer_ids"]),
        ("moe_layer_ids", [0, 1, 1.5], ["moe_layer_ids"]),
        ("moe_layer_ids", 5, []),
        ("phy2log", (PLAN.phy2log + 0.5).tolist(), ["int64"]),
        ("phy2log", (PLAN.phy2log * 0).tolist(), ["no replica"]),
        ("phyrank", [[0]], ["shape (1, 1)"]),
    ],
    ids=lambda value: str(value)[:20],
)
def test_foreign_plans_are_refused(name, value, parts, saved):
    if saved.suffix == ".npz" and name.startswith("phy"):
        value = np.array(value)
    change_header(saved, lambda content: content.update({name: value}))
    with refused(str(saved), "is not a plan", *parts):
        Plan.load(saved)


@pytest.mark.parametrize("name", ["phy2log", "dtype", "topology", "moe_layer_ids", "policy"])
def test_plans_with_something_missing_are_refused(name, saved):
    change_header(saved, lambda content: content.pop(name))
    with refused(str(saved), "is not a plan", f"it has no {name}"):
        Plan.load(saved)


def test_numbers_that_a_plans_dtype_cannot_hold_are_refused(saved):
    beyond = np.array(PLAN.phyrank)
    beyond[0, 0] += 2**32
    value = beyond if saved.suffix == ".npz" else beyond.tolist()
    change_header(saved, lambda content: content.update(dtype="int32", phyrank=value))
    with refused("int32"):
        Plan.load(saved)


def test_a_pickle_is_no_plan(tmp_path):
    path = tmp_path / "plan.npz"
    PLAN.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "header": arrays["header"].astype(object)})
    with refused("is not a plan", "allow_pickle=False"):
        Plan.load(path)


def test_an_array_is_no_plan(write):
    with refused("is not a plan that Plan.save wrote: it is not an .npz archive"):
        Plan.load(write(as_npy(LOAD), ".npz"))


@pytest.mark.parametrize(
    ("content", "suffix"),
    [
        (b"", ".json"), (b"", ".npz"), (b"[]", ".json"), (b"3", ".json"), (b"{", ".json"),
        (b"[" * 100_000, ".json"), (as_npy(LOAD), ".npz"), (as_npz(a=LOAD), ".npz"),
        (pickle.dumps(PLAN), ".npz"),
    ],
)  # fmt: skip
def test_what_is_no_plan_is_refused(content, suffix, write):
    path = write(content, suffix)
    with refused(str(path), "is not a plan"):
        Plan.load(path)


# ---------------------------------------------------------------------------------------------
# Any file
# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", [read_loads, Plan.load, PLAN.save])
@pytest.mark.parametrize("name", ["file.txt", "file", "file.pt"])
def test_other_suffixes_are_refused(name, act, tmp_path):
    with refused(name, "unknown file suffix", ".json", ".npz"):
        act(tmp_path / name)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("read", [read_loads, Plan.load])
def test_a_missing_file_is_a_missing_file(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        read(tmp_path / "absent.npz")
    (tmp_path / "folder.npz").mkdir()
    with refused("folder.npz", "directory"):
        read(tmp_path / "folder.npz")


def damage(content, rng):
    """Cut the content, or overwrite a few bytes of it."""
    if rng.random() < 0.2:
        return content[: rng.randrange(len(content))]
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


@pytest.mark.filterwarnings("ignore")  # NumPy's, about headers that look like Python 2's
@pytest.mark.parametrize("kind", ["json", "npy", "npz, by name", "npz, compressed"])
def test_damaged_loads_are_read_or_refused(kind, write):
    suffix, encode = FORMATS[kind]
    assert_read_or_refused(read_loads, encode(LOAD), suffix, write)


@pytest.mark.filterwarnings("ignore")
def test_damaged_plans_are_read_or_refused(saved, write):
    assert_read_or_refused(Plan.load, saved.read_bytes(), saved.suffix, write)


def assert_read_or_refused(read, content, suffix, write):
    rng = random.Random(0)
    refusals = []
    for _ in range(fewer(1000, 300)):
        path = write(damage(content, rng), suffix)
        try:
            read(path)
        except ValueError as error:
            refusals.append(str(error))
    assert all(text.startswith(str(path)) and "\n" not in text for text in refusals)
    assert len(refusals) > 100


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failing_write_leaves_the_old_file(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"plan{suffix}"
    path.write_bytes(b"the old file")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        PLAN.save(path)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]


def fail(*args):
    raise OSError("disk full")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_nothing(error, tmp_path):
    def write(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(tmp_path / "file", write)
    assert not any(tmp_path.iterdir())


def test_a_write_replaces_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"the old file")
    write_atomically(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_not_made(tmp_path):
    with pytest.raises(FileNotFoundError):
        PLAN.save(tmp_path / "absent" / "plan.json")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_plans_of_gpus_that_differ_come_back(suffix, tmp_path):
    plan = make_plan(
        [[5.0, 1, 1, 1, 2]], num_replicas=8, num_gpus=3, gpu_speeds=[1, 2, 1], gpu_slots=[2, 4, 2],
        active_gpus=[0, 1], policy="refined",
    )  # fmt: skip
    plan.save(tmp_path / f"plan{suffix}")
    again = Plan.load(tmp_path / f"plan{suffix}")
    assert again == plan
    assert again.topology == plan.topology
    assert (again.phy2log[0, 6:] == -1).all()
