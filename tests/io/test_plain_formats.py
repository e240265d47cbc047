"""Lists of JSON, and LMDeploy's statistics; all plain formats by chance, and hostile files."""

import gzip
import json
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from plain_samples import SAMPLES, as_entries, as_list, as_text
from support import output_of, refused

from eplb_np.io import RecordedLoads, read_loads, write_loads

COUNTS = np.array([[0, 0, 0, 0], [9, 3, 2, 2], [1, 1, 12, 2]])
MIB = 1 << 20


@pytest.fixture
def read(tmp_path):
    """Read loads from a file of this content."""

    def read(content, format=None, **options):
        path = tmp_path / "loads"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_loads(path, format, **options)

    return read


# ---------------------------------------------------------------------------------------------
# Lists
# ---------------------------------------------------------------------------------------------


def test_a_list_is_a_table_of_loads(read):
    loads = read(as_list(COUNTS))
    assert loads.format == "json"
    assert loads.load.tolist() == COUNTS[1:].tolist()
    assert (loads.moe_layer_ids, loads.dense_layer_ids, loads.num_hidden_layers) == ([1, 2], [0], 3)
    assert read(as_list(COUNTS[1:]), moe_layer_ids=[3, 5]).moe_layer_ids == [3, 5]


def test_steps_of_a_list_are_a_history(read):
    loads = read(as_list(np.stack([COUNTS, 0 * COUNTS, 2 * COUNTS])))
    assert loads.steps.tolist() == [COUNTS[1:].tolist(), (2 * COUNTS[1:]).tolist()]
    assert loads.load.tolist() == (3 * COUNTS[1:]).tolist()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[1, 2]", ["list", "give a list of rows"]),
        ("[]", ["list of rows"]),
        ("[[]]", ["no empty axis"]),
        ("[[1, 2], [3]]", ["not rectangular"]),
        ("[[[1], [2]], [[3]]]", ["not rectangular"]),
        ("[[1, -2]]", ["[0, 1] = -2"]),
        ("[[1, NaN]]", ["nan"]),
        ("[[1, null]]", ["real number"]),
        ('[["1", 2]]', ["real number"]),
        ("[[1, 2]] [[3, 4]]", ["more data follows"]),
        ("[[[[1]]]]", ["4 axes or more"]),
        ("[[0, 0]]", ["no MoE layer"]),
        ("[[1, 2", ["delimiter"]),
    ],
)
def test_other_lists_are_refused(text, parts, read):
    for format in (None, "json"):
        with refused("loads: ", *parts):
            read(text, format)


# ---------------------------------------------------------------------------------------------
# LMDeploy
# ---------------------------------------------------------------------------------------------


def test_lmdeploys_list_has_every_layer(read):
    loads = read(as_list(COUNTS[1:]), "lmdeploy")
    assert (loads.format, loads.num_hidden_layers, loads.moe_layer_ids) == ("lmdeploy", 2, [0, 1])
    assert read(as_list(COUNTS[1:])).format == "json"
    with refused("the file itself says which layers"):
        read(as_list(COUNTS), "lmdeploy", moe_layer_ids=[0, 1, 2])
    with refused("3 axes", "[layers, experts]"):
        read(as_list(COUNTS[None]), "lmdeploy")
    with refused("not of format 'lmdeploy'"):
        read('{"a": [[1]]}', "lmdeploy")


@pytest.mark.parametrize("format", ["lmdeploy", "sglang"])
def test_loads_are_written_with_their_dense_layers(format, read, tmp_path):
    path = tmp_path / "it's for the engine.json"
    written = write_loads(read(as_list(COUNTS)), path, format)
    table = {"lmdeploy": COUNTS.tolist(), "sglang": {"logical_count": COUNTS.tolist()}}[format]
    assert path.read_text() == json.dumps(table)
    assert (written.path, written.format) == (path, format)
    assert shlex.split(written.start)[0 if format == "lmdeploy" else 1].endswith(str(path))
    assert read_loads(path, format).load.tolist() == COUNTS[1:].tolist()
    assert read_loads(path, format).num_hidden_layers == 3


def test_loads_get_the_layers_that_are_known(read, tmp_path):
    path = tmp_path / "loads.json"
    loads = read(as_text(COUNTS[1:], header=True, ids=[1, 3]))
    with refused("give num_hidden_layers", "61"):
        write_loads(loads, path, "lmdeploy")
    with refused("num_hidden_layers=3", "layer 3, too"):
        write_loads(loads, path, "lmdeploy", num_hidden_layers=3)
    with refused("num_hidden_layers", "too large"):
        write_loads(loads, path, "lmdeploy", num_hidden_layers=1 << 30)
    assert not path.exists()
    write_loads(loads, path, "lmdeploy", num_hidden_layers=5)
    nothing = [0, 0, 0, 0]
    expected = [nothing, COUNTS[1].tolist(), nothing, COUNTS[2].tolist(), nothing]
    assert path.read_text() == json.dumps(expected)
    with refused("num_hidden_layers=4", "of 5 layers"):
        write_loads(read_loads(path, "lmdeploy"), path, "sglang", num_hidden_layers=4)


def test_a_table_beyond_what_is_read_is_not_written(tmp_path):
    loads = RecordedLoads(np.ones((1, 1 << 20)), None, [0], [], None, 1)
    with refused("at most"):
        write_loads(loads, tmp_path / "loads.json", "lmdeploy", num_hidden_layers=17)
    assert not any(tmp_path.iterdir())


def test_loads_that_are_not_whole_stay_so(read, tmp_path):
    path = tmp_path / "loads.json"
    for text in ("[[0.5, 2.0]]", f"[[{2.0**60}, 1.0]]"):
        write_loads(read(text), path, "lmdeploy", num_hidden_layers=1)
        assert path.read_text() == text


def test_other_loads_are_not_written(read, tmp_path):
    loads = read(as_list(COUNTS))
    with refused("no format of loads that are written", "sglang, numpy, lmdeploy"):
        write_loads(loads, tmp_path / "loads.json", "json")
    with refused("suffix", ".json"):
        write_loads(loads, tmp_path / "loads.txt", "lmdeploy")
    with refused("must be a RecordedLoads", "read_loads"):
        write_loads(COUNTS, tmp_path / "loads.json", "lmdeploy")


# ---------------------------------------------------------------------------------------------
# All of them
# ---------------------------------------------------------------------------------------------

counts = arrays(
    np.int64,
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    elements=st.integers(0, 10**6),
).filter(lambda table: table.any() and table[:, -1].any())


@pytest.mark.parametrize("kind", SAMPLES)
@given(table=counts, packed=st.booleans())
def test_what_others_write_is_read(kind, table, packed):
    content = SAMPLES[kind](table)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "loads"
        path.write_bytes(gzip.compress(content) if packed else content)
        loads = read_loads(path)
    moe = table.any(axis=1)
    expected = table[moe] * (3 if "steps" in kind else 1)
    first = table.shape[1] >= 4 and np.array_equal(table[0], np.arange(table.shape[1]))
    if kind == "text" and first and len(table) > 1:  # taken for a header
        return
    assert loads.load.tolist() == expected.tolist()
    assert loads.moe_layer_ids == np.flatnonzero(moe).tolist()
    assert loads.format == kind.split(maxsplit=1)[0]


@given(
    table=counts,
    separator=st.sampled_from(",;\t "),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoted=st.booleans(),
    ids=st.lists(st.integers(0, 99), min_size=5, max_size=5, unique=True),
)
def test_every_dialect_says_the_same(table, separator, end, quoted, ids):
    content = as_text(table, separator, end, header=True, ids=ids, quoted=quoted)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "loads"
        path.write_bytes(content)
        loads = read_loads(path)
        path.write_bytes(as_entries(table, ids))
        again = read_loads(path, num_experts=table.shape[1])
    moe = table.any(axis=1)
    expected = {ids[i]: table[i].tolist() for i in range(len(table)) if moe[i]}
    for found in (loads, again):
        assert dict(zip(found.moe_layer_ids, found.load.tolist(), strict=True)) == expected


READ = """
import resource, time
from pathlib import Path
from eplb_np.io import read_loads, read_plan

room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
start = time.process_time()
try:
    print("read", {read}({path!r}))
except ValueError as error:
    assert "\\n" not in str(error) and {path!r} in str(error), error
    print("refused:", error)
assert time.process_time() - start < 2
"""

zeros = b"0," * (MIB - 1) + b"0\n"
DEVICE = b'{"device_expert": [0]}'

HOSTILE = {
    "zeros": (lambda: zeros * 8, "all 8 layers are zero"),
    "zeros, packed": (lambda: gzip.compress(zeros * 8), "all 8 layers are zero"),
    "more zeros": (lambda: zeros * 9, "8388608 numbers"),
    "short rows": (lambda: b"0\n" * MIB, "131072 rows"),
    "a long row": (lambda: b"1" + b"," * (60 * MIB), "1048576 columns"),
    "a long row of blanks": (lambda: b"1 " * (30 * MIB), "1048576 columns"),
    "a long row of quotes": (lambda: b'1,1\n"1",' + b'"1",' * (15 * MIB), "1048576 columns"),
    "an open quote": (lambda: b'1,1\n"' + b"1" * (60 * MIB), "field limit"),
    "empty lines": (lambda: b"1\n" + b"\n" * (60 * MIB), "1048576 lines"),
    "comments": (lambda: b"1\n" + b"#\n" * (30 * MIB), "1048576 lines"),
    "a long number": (lambda: b"1" * (60 * MIB), "column 1"),
    "a long number that is none": (lambda: b"1,1\n1," + b"1" * (60 * MIB) + b"_", "column 2"),
    "a long name": (lambda: b"1,1\n" * 3 + b" " * (60 * MIB) + b"x,1\n", "column 1"),
    "wide characters": (
        lambda: b"1,1\n" * 9 + b" " * (60 * MIB) + "\U0001f600\r".encode(), "line 10 has 1 columns"
    ),
    "NaN at the end": (lambda: zeros * 7 + zeros[:-2] + b"nan\n", "line 8, column 1048576"),
    "many entries": (
        lambda: b"layer,expert,count\n"
        + b"".join(b"%d,%d,0\n" % divmod(i, 512) for i in range((1 << 18) + 1)),
        "262144 layers and experts",
    ),
    "entries of a table that no memory holds": (
        lambda: b"layer,expert,count\n" + b"".join(b"%d,1048575,1\n" % i for i in range(5000)),
        "16777216 loads of a step",
    ),
    "too large": (lambda: b"1,1\n" * (17 * MIB), "64 MiB of text"),
    "HTML": (lambda: b"<html>\n" * (20 * MIB), "no known format"),
    "binary": (lambda: bytes(range(256)) * (1 << 19), "binary, not text"),
    "a long list": (lambda: b"[" + b"[0]," * MIB + b"[0]]", "131072 rows"),
    "a map of nothing": (
        lambda: b'{"moe_layer_count": 1, "layer_list": [' + b"[]," * (10 * MIB) + b"[]]}", "8 MiB"
    ),
    "a map of small objects": (
        lambda: b'{"moe_layer_count": 1, "layer_list": [' + b'{"a":{}},' * 800_000 + b"{}]}",
        "moe_layer_count is 1",
    ),
    "a map of a device": (
        lambda: b'{"moe_layer_count": 1, "layer_list": [{"device_list": [{"device_expert": ['
        + b",".join(b"%d" % i for i in range(900_000)) + b", 0]}]}]}",
        "expert 0 twice",
    ),
    "a map of many devices": (
        lambda: b'{"moe_layer_count": 1, "layer_list": [{"device_list": ['
        + (DEVICE + b",") * 300_000 + DEVICE[:-2] + b",0]}]}]}",
        "the same number",
    ),
}  # fmt: skip


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", HOSTILE)
def test_what_cannot_be_loads_is_refused_soon(kind, tmp_path):
    make, part = HOSTILE[kind]
    path = tmp_path / "loads"
    path.write_bytes(make())
    read = "read_plan" if "map" in kind else "read_loads"
    said = output_of(READ.format(read=read, path=str(path)))
    assert said.startswith("refused:"), said
    assert part in said
