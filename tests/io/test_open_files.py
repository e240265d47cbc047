"""Files that are open already, as standard input is, and loads written as an array."""

import gzip
import io
import json

import numpy as np
import pytest
from sglang_samples import write_ranks
from support import refused

from eplb_np import in_order_plan
from eplb_np.io import read_loads, read_plan, write_loads
from eplb_np.io.contents import opened
from eplb_np.io.formats import is_plan
from eplb_np.topology import Topology

COUNTS = np.arange(1, 13).reshape(2, 6)
PLAN = in_order_plan(2, Topology(4, 6, 2))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file


def test_an_open_file_is_read_from_its_start_and_stays_open(tmp_path):
    for content in (npy(COUNTS).getvalue(), gzip.compress(json.dumps(COUNTS.tolist()).encode())):
        file = io.BytesIO(content)
        file.read(3)
        loads = read_loads(file)
        assert np.array_equal(loads.load, COUNTS)
        assert not file.closed
    assert loads.source == "the open file: JSON"
    path = tmp_path / "loads.npy"
    np.save(path, COUNTS)
    with path.open("rb") as file:
        assert read_loads(file).source == f"{path}: NumPy"


def test_an_open_file_of_a_plan_is_read(tmp_path):
    PLAN.save(tmp_path / "p.npz")
    with (tmp_path / "p.npz").open("rb") as file:
        assert read_plan(file) == PLAN


def test_what_is_wrong_with_an_open_file_begins_with_its_name(tmp_path):
    file = io.BytesIO(b"[[1, -1]]")
    file.name = "here"
    with refused("here: "):
        read_loads(file)
    with refused("the open file: ", "open it in binary mode"):
        read_loads(io.StringIO("[[1, 2]]"))
    closed = io.BytesIO()
    closed.close()
    with refused("the open file: "):
        read_plan(closed)


def test_files_beside_an_open_dump_are_no_matter(tmp_path, monkeypatch):
    """The dump of one rank is refused if others lie beside it, but a pipe lies nowhere."""
    monkeypatch.chdir(tmp_path)
    slots = np.ones((2, 1, 3, 6), int)
    write_ranks(tmp_path, slots, PLAN.phy2log[[0, 0, 0]])
    (path,) = tmp_path.iterdir()
    content = io.BytesIO(path.read_bytes())
    (tmp_path / path.name.replace("_0.pt", "_1.pt")).write_bytes(b"")
    with refused("rank 1 lies beside it"):
        read_loads(path)
    assert read_loads(content).num_steps == 2


def test_an_array_keeps_steps_and_dense_layers(tmp_path):
    steps = np.zeros((3, 4, 6), np.float32)
    steps[:, [1, 2]] = np.random.default_rng(1).random((3, 2, 6))
    np.save(tmp_path / "in.npy", steps)
    loads = read_loads(tmp_path / "in.npy")
    written = write_loads(loads, tmp_path / "out.npy", "numpy")
    assert (written.start, written.format) == ("", "numpy")
    back = np.load(tmp_path / "out.npy")
    assert back.dtype == np.float32
    assert np.array_equal(back, steps)
    again = read_loads(tmp_path / "out.npy")
    assert np.array_equal(again.load, loads.load)
    assert again.moe_layer_ids == loads.moe_layer_ids
    one = read_loads(tmp_path / "in.npy", in_order=False)
    write_loads(one, tmp_path / "sum.npy", "numpy")
    assert np.load(tmp_path / "sum.npy").shape == (4, 6)
    with refused("unknown file suffix"):
        write_loads(one, tmp_path / "out.json", "numpy")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (npy(COUNTS), False),
        (npy(np.array([[0, 1, 2, 0], [2, 1, 0, 0]])), True),
        (npy(np.array([[0, 1, 2, 0], [2, 1, 1, 1]])), False),  # no expert 0 in a row
        (npy(np.array([[0, 1, 2, 4], [2, 1, 0, 0]])), False),
        (io.BytesIO(b'{"logical_count": [[1, 2]]}'), False),
        (io.BytesIO(b'{"physical_to_logical_map": [[0, 1]], "logical_count": [[1, 2]]}'), True),
        (io.BytesIO(b'{"ep_rank_to_expert_id_list": [[0, 1]]}'), True),
        (io.BytesIO(b'{"tokens_per_expert_stats_list": [[3, 1]]}'), False),
        (io.BytesIO(b"[[1, 2]]"), False),
        (io.BytesIO(b"layer,expert_0\n0,1\n"), False),
        (io.BytesIO(b'{"moe_layer_count": 1, "layer_list": []}'), True),
    ],
)
def test_content_tells_plans_from_loads(content, expected):
    with opened(content) as contents:
        assert is_plan(contents, None) == expected
