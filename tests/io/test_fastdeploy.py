"""FastDeploy's report of its last plan, and of the loads for it."""

import json

import numpy as np
import pytest
from plain_samples import as_rearrange_experts
from recorded import INTEROP, needs_interop
from support import refused

from eplb_np.io import read_loads, read_plan, write_plan

COUNTS = np.array([[0, 0, 0, 0], [9, 3, 2, 2], [1, 1, 12, 2]])
PHY2LOG = np.array([[0, 1, 2, 3, 0, 1], [0, 1, 0, 2, 3, 1], [2, 0, 2, 1, 3, 2]])
LOADS, MAP = "tokens_per_expert_stats_list", "ep_rank_to_expert_id_list"


@pytest.fixture
def write(tmp_path):
    def write(**changes):
        path = tmp_path / "rearrange-experts.json"
        path.write_text(json.dumps(json.loads(as_rearrange_experts(COUNTS, PHY2LOG)) | changes))
        return path

    return write


@needs_interop
def test_the_sample_is_read():
    path = INTEROP / "fastdeploy" / "rearrange-experts.json"
    loads = read_loads(path)
    assert loads.format == "fastdeploy"
    assert loads.load.tolist() == np.arange(24).reshape(3, 8).tolist()
    plan = read_plan(path, num_gpus=2, moe_layer_ids=[1, 2])
    assert plan.phy2log.tolist() == [
        [0, 2, 4, 6, 1, 3, 5, 7, 7, 3], [5, 5, 0, 1, 2, 3, 4, 6, 7, 5],
    ]  # fmt: skip


def test_loads_are_of_every_decoder_layer(write):
    loads = read_loads(write())
    assert loads.load.tolist() == COUNTS[1:].tolist()
    assert (loads.moe_layer_ids, loads.dense_layer_ids) == ([1, 2], [0])
    assert (loads.num_hidden_layers, loads.num_steps, loads.notes) == (3, 1, ())
    with refused("the file itself says which layers"):
        read_loads(write(), moe_layer_ids=[0, 1, 2])


def test_loads_before_the_first_count_are_said_to_be_none(write):
    (note,) = read_loads(write(**{LOADS: np.ones((3, 4), int).tolist()})).notes
    assert "before it has counted anything" in note


def test_layers_of_a_plan_are_selected(write):
    with refused("give num_gpus"):
        read_plan(write())
    plan = read_plan(write(), num_gpus=3)
    assert plan.phy2log.tolist() == PHY2LOG.tolist()
    assert (plan.policy, plan.moe_layer_ids) == ("fastdeploy", (0, 1, 2))
    plan = read_plan(write(), num_gpus=2, moe_layer_ids=[1, 2])
    assert plan.phy2log.tolist() == PHY2LOG[1:].tolist()
    assert plan.moe_layer_ids == (1, 2)
    with refused("there is no layer 3"):
        read_plan(write(), num_gpus=2, moe_layer_ids=[1, 3])


@pytest.mark.parametrize("value", [None, 3, [], [[]], [1, 2], [[1, 2], [3]], [[[[1]]]], "text"])
def test_other_tables_are_refused(value, write):
    path = write(**{LOADS: value})
    with refused(str(path)):
        read_loads(path)
    path = write(**{MAP: value})
    with refused(str(path)):
        read_plan(path, num_gpus=2)


def test_what_is_wrong_in_a_table_is_said(write):
    with refused("no table", LOADS):
        read_loads(write(**{LOADS: None}))
    with refused(LOADS, "[1, 2] = -1", "not negative"):
        read_loads(write(**{LOADS: [[0, 0, 0], [1, 2, -1]]}))
    with refused("slot 1 of row 0 holds -1"):
        read_plan(write(**{MAP: [[0, -1, 1], [0, 1, 0]]}), num_gpus=1)
    with refused("integers"):
        read_plan(write(**{MAP: [[0, 0.5, 1]]}), num_gpus=1)
    with refused("expert 1 has no replica in layer 1"):
        read_plan(write(**{MAP: [[0, 1, 2], [0, 2, 0]]}), num_gpus=1)


def test_the_report_is_not_written(write, tmp_path):
    plan = read_plan(write(), num_gpus=2)
    with refused("no format of plans that are written"):
        write_plan(plan, tmp_path / "other.json", "fastdeploy")
