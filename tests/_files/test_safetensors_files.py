"""Files of safetensors: all of their real numbers, and no trust in their headers."""

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from rank_samples import NAMES, safetensors_bytes, safetensors_of
from support import assert_same, refused

from eplb_np._files import safetensors_files
from eplb_np._files.safetensors_files import SafeTensors

RNG = np.random.default_rng(3)


def read(content):
    blocks = SafeTensors(io.BytesIO(content)).blocks()
    return {name: values[i, ...] for names, values in blocks for i, name in enumerate(names)}


@pytest.mark.parametrize("dtype", [*NAMES, "i2", "u2", "u4", "i1"])
def test_every_real_dtype(dtype):
    names = {"i2": "I16", "u2": "U16", "u4": "U32", "i1": "I8", **NAMES}
    values = {"a": RNG.integers(0, 100, (2, 3)).astype(dtype), "b": np.array(7, dtype)}
    assert_same(read(safetensors_bytes(values, names)).values(), values.values(), dtype)


def test_bfloat16_is_read_as_float32():
    values = np.array([[0, 1.5, -3e38], [np.inf, 1 / 3, 1e-40]]).astype(bfloat16)
    content = safetensors_bytes({"a": values.view("u2")}, {"u2": "BF16"})
    assert_same([read(content)["a"]], [values.astype(np.float32)], "bfloat16")


@given(
    st.dictionaries(
        st.text(max_size=9), st.lists(st.integers(0, 3), max_size=4).map(tuple), max_size=6
    ),
    st.randoms(use_true_random=False),
)
def test_what_was_written_comes_back(shapes, random):
    shapes.pop("__metadata__", None)
    dtypes = {name: random.choice(["i8", "f2", "u1"]) for name in shapes}
    values = {
        name: RNG.integers(0, 99, shape).astype(dtypes[name]) for name, shape in shapes.items()
    }
    found = read(safetensors_bytes(values, __metadata__={"format": "pt"}))
    assert found.keys() == values.keys()
    assert_same([found[name] for name in values], values.values(), "safetensors")


@pytest.mark.parametrize("block_bytes", [1, 48, 1 << 20])
def test_blocks_have_one_dtype_and_shape(block_bytes, monkeypatch):
    monkeypatch.setattr(safetensors_files, "BLOCK_BYTES", block_bytes)
    kinds = [("i8", 3), ("i8", 3), ("f8", 3), ("i8", 3), ("i8", 2), ("i8", 2), ("i8", 2)]
    values = {f"{i}": RNG.integers(0, 9, size).astype(kind) for i, (kind, size) in enumerate(kinds)}
    content = safetensors_bytes(values)
    sizes = [len(names) for names, _ in SafeTensors(io.BytesIO(content)).blocks()]
    assert sizes == ([1] * 7 if block_bytes == 1 else [2, 1, 1, 3])
    assert_same(read(content).values(), values.values(), "blocks")


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_library_writes_the_same(name, tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    values = {"b": np.arange(6).reshape(2, 3), "a": np.arange(3, dtype=np.float16)}
    library.save_file(values, tmp_path / "x", metadata={"format": "np"})
    found = read((tmp_path / "x").read_bytes())
    assert_same([found[name]], [values[name]], name)


def entry(dtype="I64", shape=(2,), place=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(place)}


DATA = bytes(16)
BAD = {
    "empty": (b"", ["ends before"]),
    "a short length": (b"\1\0\0", ["ends before"]),
    "no header": (struct.pack("<Q", 100) + b"{}", ["100 bytes", "ends before"]),
    "no end": (struct.pack("<Q", 1 << 63) + b"{}", ["ends before"]),
    "no JSON": (struct.pack("<Q", 2) + b"{]", ["character"]),
    "no object": (safetensors_of([], b""), ["list"]),
    "no text": (struct.pack("<Q", 2) + b"\xff\xff", ["decode"]),
    "a name twice": (
        struct.pack("<Q", 15) + b'{"a":1, "a":2 }', ["declared as 1"],
    ),
    "no dtype": (safetensors_of({"a": {"shape": [2]}}, DATA), ["'a'", "needs dtype"]),
    "a list": (safetensors_of({"a": [[1, 2]]}, DATA), ["'a'"]),
    "a text": (safetensors_of({"a": "I64"}, DATA), ["'a'"]),
    "a float size": (safetensors_of({"a": entry(shape=[2.0])}, DATA), ["'a'"]),
    "a bool": (
        safetensors_of({"a": entry(shape=[True], place=[0, 8])}, bytes(8)), ["'a'", "needs"],
    ),
    "negative sizes": (safetensors_of({"a": entry(shape=[-1, -2])}, DATA), ["'a'", "needs"]),
    "three ends": (safetensors_of({"a": entry(place=[0, 1, 2])}, DATA), ["'a'"]),
    "many axes": (safetensors_of({"a": entry(shape=[1] * 9)}, DATA), ["'a'"]),
    "ends before it begins": (safetensors_of({"a": entry(place=[16, 0])}, DATA), ["'a'"]),
    "F8": (safetensors_of({"a": entry("F8_E4M3", [16])}, DATA), ["F8_E4M3", "not read"]),
    "bools": (safetensors_of({"a": entry("BOOL", [16])}, DATA), ["BOOL", "not read"]),
    "complex": (safetensors_of({"a": entry("C64")}, DATA), ["C64", "not read"]),
    "an unknown dtype": (safetensors_of({"a": entry(["I64"])}, DATA), ["not read"]),
    "another size": (safetensors_of({"a": entry(shape=[3])}, DATA), ["not the size"]),
    "less than its data": (safetensors_of({"a": entry(shape=[1])}, DATA), ["not the size"]),
    "a huge size": (safetensors_of({"a": entry(shape=[2**63, 2**63])}, DATA), ["not the size"]),
    "beyond the end": (safetensors_of({"a": entry(place=[8, 24])}, DATA), ["gap"]),
    "cut": (safetensors_of({"a": entry()}, DATA[:-1]), ["16 bytes", "15 bytes"]),
    "more data": (safetensors_of({"a": entry()}, DATA + b"x"), ["17 bytes"]),
    "overlap": (
        safetensors_of({"a": entry(), "b": entry(place=[8, 24])}, bytes(24)), ["overlap"],
    ),
    "the same data twice": (safetensors_of({"a": entry(), "b": entry()}, DATA), ["overlap"]),
    "a gap": (
        safetensors_of({"a": entry(), "b": entry(place=[24, 40])}, bytes(40)), ["gap"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_are_refused(kind):
    content, parts = BAD[kind]
    with refused(*parts):
        read(content)


@pytest.mark.parametrize(
    ("limit", "value", "part"),
    [
        ("LARGEST_HEADER", 64, "MiB"),
        ("LARGEST_ARRAYS", 15, "MiB"),
        ("LIMITS", safetensors_files.LIMITS._replace(keys=1), "1 keys"),
        ("LIMITS", safetensors_files.LIMITS._replace(value=40), "40 characters"),
    ],
)
def test_what_is_too_large_is_refused(limit, value, part, monkeypatch):
    content = safetensors_bytes({"a": np.arange(1), "b": np.arange(2)})
    read(content)
    monkeypatch.setattr(safetensors_files, limit, value)
    with refused(part):
        read(content)
