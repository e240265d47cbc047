"""Files in and out: all of it, or an error in one line."""

import dataclasses
import gzip
import io
import json
import os
import pickle
import random
import socket
import stat
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support import assert_same, fewer, refused

from eplb_np import Plan, Rebalancer, Topology, in_order_plan, make_plan
from eplb_np._files.atomic import write_atomically
from eplb_np._files.json_text import parse_json
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
    "any name": ("", as_npy),
    "another's name": (".npz", as_json),
    "packed": (".json.gz", lambda values: gzip.compress(as_json(values))),
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


def as_npz_twice(name, values, compression=zipfile.ZIP_STORED, more=None):
    """An archive that np.savez does not write: with an array twice, or one with more data."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's, about the name
        with zipfile.ZipFile(file, "w", compression) as archive:
            for _ in range(1 if more else 2):
                archive.writestr(name, as_npy(values) + (more or b""))
    return file.getvalue()


def bad(layer, expert, value):
    values = LOAD.copy()
    values[layer, expert] = value
    return values


BAD_LOADS = {
    "NaN": (as_npy(bad(4, 2, np.nan)), ".npy", ["[4, 2] = nan", "layer 4, expert 2"]),
    "NaN in JSON": (as_json(bad(4, 2, np.nan)), ".json", ["[4, 2] = nan", "layer 4, expert 2"]),
    "a signalling NaN": (
        as_npy(np.array([[0x7F800001, 0]], np.uint32).view(np.float32)), ".npy", ["[0, 0] = nan"],
    ),
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
    "null": (as_json(bad(1, 0, np.nan)).replace(b"NaN", b"null"), ".json", ["real number"]),
    "ragged steps": (b'{"logical_count": [[[1], [2]], [[3]]]}', ".json", ["rectangular"]),
    "a key twice": (b'{"logical_count": [[1]], "logical_count": [[2]]}', ".json", ["twice"]),
    "a key twice inside": (b'{"x": {"y": 1, "y": 2}, "logical_count": [[1]]}', ".json", ["twice"]),
    "an array twice": (as_npz_twice("logical_count.npy", LOAD), ".npz", ["twice"]),
    "another compression": (as_npz_twice("a.npy", LOAD, zipfile.ZIP_LZMA), ".npz", ["not read"]),
    "more after the data": (as_npz_twice("a.npy", LOAD, more=b"x"), ".npz", ["more data"]),
    "steps beyond float64": (as_npy(np.full((2, 1, 2), 1e308)), ".npy", ["layer 0", "2**127"]),
    "steps beyond float32": (
        as_npy(np.stack([bad(1, 0, 2.0**126)] * 2)), ".npy", ["layer 1", "2**127", "scale"],
    ),
    "too many layers": (as_npy(np.zeros((1 << 21, 1), np.int8)), ".npy", ["1048576", "layers"]),
    "ragged": (b'{"logical_count": [[1, 2], [3]]}', ".json", ["rectangular", "same length"]),
    "a number": (b'{"logical_count": 3}', ".json", ["()", "[layers, experts]"]),
    "nothing": (b'{"logical_count": null}', ".json", ["real number"]),
    "another key": (b'{"counts": [[1]]}', ".json", ["keys 'counts'", "no known format"]),
    "only a map": (b'{"physical_to_logical_map": [[1]]}', ".json", ['no key "logical_count"']),
    "huge digits": (b'{"logical_count": [[' + b"9" * 9999 + b"]]}", ".json", []),
    "deep JSON": (b'{"logical_count": ' + b"[" * 100_000, ".json", ["4 axes or more"]),
    "cut JSON": (as_json(LOAD)[:-3], ".json", ["delimiter"]),
    "no text": (b"{" + bytes(range(128, 256)), ".json", ["decode"]),
    "empty json": (b"", ".json", []),
    "empty npy": (b"", ".npy", []),
    "empty npz": (b"", ".npz", []),
    "npz of two": (as_npz(a=LOAD, b=LOAD), ".npz", ["['a', 'b']", '"logical_count"']),
    "npz of none": (as_npz(), ".npz", ["[]", '"logical_count"']),
    "a pickle": (pickle.dumps(LOAD), ".npy", []),
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


@pytest.mark.parametrize("act", [Plan.load, PLAN.save])
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
    with refused("folder.npz", "folder" if read is read_loads else "directory"):
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


# ---------------------------------------------------------------------------------------------
# What is read and written, whatever its name leads to
# ---------------------------------------------------------------------------------------------


def state_of(topology=PLAN.topology):
    return Rebalancer(topology, 3)


SAVES = {"plan.json": PLAN.save, "plan.npz": PLAN.save, "state.npz": state_of().save}
every_save = pytest.mark.parametrize("name", SAVES)


@every_save
def test_a_symbolic_link_is_written_through(name, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / name, tmp_path / name
    link.symlink_to(target)
    for _ in range(2):  # to a file that is not there yet, and to one that is
        SAVES[name](link)
        assert link.is_symlink()
        assert not target.is_symlink()
        assert target.stat().st_size > 0
        assert [path.name for path in target.parent.iterdir()] == [name]


@every_save
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
def test_a_file_keeps_its_mode(mode, name, tmp_path):
    path = tmp_path / name
    path.touch()
    path.chmod(mode)
    SAVES[name](path)
    assert path.stat().st_size > 0
    assert stat.S_IMODE(path.stat().st_mode) == mode


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


NOT_FILES = {
    "a FIFO": os.mkfifo,
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to(os.devnull),
    "a directory": lambda path: path.mkdir(),
}


@every_save
@pytest.mark.parametrize("kind", NOT_FILES)
def test_what_is_no_file_is_not_written_to(kind, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    path = Path(name)
    NOT_FILES[kind](path)
    before = path.stat()
    with refused(name, f"it is {kind}, not a regular file"):
        SAVES[name](path)
    assert stat.S_IFMT(path.stat().st_mode) == stat.S_IFMT(before.st_mode)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("kind", NOT_FILES)
@pytest.mark.parametrize(
    ("read", "name"),
    [(read_loads, "file.json"), (read_loads, "file.npy"), (read_loads, "file.npz"),
     (Plan.load, "file.json"), (Plan.load, "file.npz"), (Rebalancer.load, "file.npz")],
)  # fmt: skip
def test_what_is_no_file_is_not_read(read, name, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NOT_FILES[kind](Path(name))
    with refused(name):
        read(name)


def test_an_error_of_a_write_names_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match=r"disk full: .*plan\.json") as error:
        PLAN.save(tmp_path / "plan.json")
    assert error.value.filename == str(tmp_path / "plan.json")


def test_a_circle_of_links_is_an_error_of_its_name(tmp_path):
    path = tmp_path / "plan.json"
    path.symlink_to(path)
    with pytest.raises(OSError, match=r"plan\.json"):
        PLAN.save(path)


@pytest.mark.parametrize("act", [read_loads, Plan.load, Rebalancer.load, *SAVES.values()])
@pytest.mark.parametrize("path", [5, None, b"plan.npz", ["plan.npz"]])
def test_what_is_no_path_is_refused(path, act):
    with refused("the path is of type", "pathlib.Path"):
        act(path)


def test_a_name_of_control_characters_is_shown_escaped(tmp_path):
    path = tmp_path / "\x1b[31mred.npy"
    path.write_bytes(as_npy(LOAD.astype(object)))
    with pytest.raises(ValueError, match=r"\\x1b\[31mred\.npy") as error:
        read_loads(path)
    assert str(error.value).isprintable()


def test_a_key_of_control_characters_is_shown_escaped(saved):
    change_header(saved, lambda content: content.update(topology={"\x1b[31m": 1}))
    with pytest.raises(ValueError, match="is not a plan") as error:
        Plan.load(saved)
    assert str(error.value).isprintable()


def test_arrays_larger_than_the_header_says_are_not_unpacked(tmp_path):
    path = tmp_path / "plan.npz"
    PLAN.save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez_compressed(path, **{**arrays, "phyrank": np.zeros((3, 1 << 20), np.int64)})
    with refused("is not a plan", "its topology and moe_layer_ids leave room for"):
        Plan.load(path)


def test_steps_are_summed_in_blocks_as_at_once(write):
    steps = np.random.default_rng(3).lognormal(3, 2, (900, 30, 64))  # several blocks
    recorded = read_loads(write(as_npy(steps), ".npy"))
    np.testing.assert_allclose(recorded.load, steps.sum(axis=0), rtol=1e-12)
    assert_same([recorded.steps], [steps], "steps")
    compressed = as_npz(np.savez_compressed, logical_count=steps)
    assert_same([read_loads(write(compressed, ".npz")).load], [recorded.load], "compressed")
    steps[890, 7, 5] = -1
    with refused("logical_count[890][7, 5] = -1.0", "layer 7, expert 5"):
        read_loads(write(as_npy(steps), ".npy"))


@pytest.mark.parametrize("indent", [None, 1])
def test_tables_of_json_are_those_of_the_json_module(indent):
    rng = random.Random(4)
    numbers = [0, 1, -3, 2**53 + 1, 2**63, 1.5, -0.0, 1e300, 3e-320, True]
    for axes in [(1, 1), (3, 2), (2, 3, 4), (1, 1, 1), (4, 1, 3)] * fewer(20, 20):
        values = np.array(rng.choices(numbers, k=int(np.prod(axes))), object).reshape(axes)
        text = json.dumps({"a": [1, [2]], "table": values.tolist(), "z": None}, indent=indent)
        found = parse_json(text, ["table"])
        expected = np.asarray(values.tolist())
        assert_same([found["table"]], [expected], text)
        assert (found["a"], found["z"]) == ([1, [2]], None)


def test_short_values_of_json_may_have_any_length():
    for length in [*range(4090, 4100), 1 << 18]:
        numbers = "7," * length + "1"
        found = parse_json(f'{{"a": "{"x" * length}", "b": [{numbers}], "c": 12}}')
        assert (found["a"], len(found["b"]), found["c"]) == ("x" * length, length + 1, 12)
