"""What notebooks show: tables of HTML, moves by number, and data frames."""

import re
import sys

import numpy as np
import pytest
from notebook_html import Page

from eplb_np import Plan, Rebalancer, Topology, in_order_plan, make_plan
from eplb_np.replay import once, replay

TOPOLOGY = Topology(4, 6, num_gpus=2)
LOAD = np.array([[90.0, 30, 10, 10], [10, 30, 90, 10]])
MADE = make_plan(LOAD, TOPOLOGY, policy="hybrid", moe_layer_ids=[3, 7])
MOVES = make_plan(LOAD[::-1], TOPOLOGY).moves_from(make_plan(LOAD, TOPOLOGY))


def shown(thing: object) -> dict[str, str]:
    """The rows of the tables that a notebook shows, in themes of any colour."""
    html = thing._repr_html_()
    assert "color" not in html
    assert "background" not in html
    assert len(html) < 10_000
    page = Page(html)
    assert page.tags() <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    names = re.findall(r'<th scope="row"[^>]*>(.*?)</th><td[^>]*>(.*?)</td>', html)
    assert names
    return dict(names)


def test_a_plan_is_shown_with_the_experts_of_its_first_slots():
    rows = shown(MADE)
    assert rows["layers"] == "2, ids 3, 7"
    assert rows["experts"] == "4 in 6 slots of each layer"
    assert rows["policy"] == f"{MADE.policy}, global placement"
    assert rows["replicas of an expert"] == "1 to 3"
    assert rows["doubles"].startswith(str(MADE.summary(LOAD).doubles))
    cells = Page(MADE._repr_html_()).text_of("td")
    assert cells[-4:] == [" ".join(map(str, MADE.phy2log[i, j : j + 3])) for i in (0, 1)
                          for j in (0, 3)]  # fmt: skip


def test_a_large_plan_is_shown_in_part():
    topology = Topology(256, 1024, 32, 4, active_gpus=[*range(1, 32)])
    plan = make_plan(np.ones((40, 256)), topology, policy="refined", moe_layer_ids=range(3, 43))
    assert shown(plan)["layers"] == "40, ids 3 to 42"
    cells = Page(plan._repr_html_()).text_of("td")[6:]
    assert len(cells) == 4 * 8
    assert cells[0] == " ".join(["-"] * 12) + " ..."
    assert shown(in_order_plan(1, TOPOLOGY))["layers"] == "1, ids 0"


def test_names_from_files_are_escaped():
    plan = Plan(MADE.phy2log, MADE.phyrank, TOPOLOGY, "<script>alert(1)</script>&")
    assert "script" not in Page(plan._repr_html_()).tags()
    assert any(text.startswith("<script>alert(1)</script>&, global")
               for text in Page(plan._repr_html_()).text_of("td"))  # fmt: skip


def test_a_topology_is_shown_with_what_is_unusual():
    assert shown(Topology(8, 12, 4, 2, 2)) == {
        "experts": "8", "slots": "12, 3 on each GPU", "GPUs": "4", "nodes": "2", "groups": "2",
        "placement": "hierarchical",
    }  # fmt: skip
    odd = Topology(8, 13, 4, 2, 2, gpu_speeds=[1, 2, 1, 1], active_gpus=[0, 1, 2], bridges=1)
    rows = shown(odd)
    assert rows["slots"] == "13, 3 to 4 on each GPU"
    assert rows["GPUs"] == "4, of which 3 are active"
    assert rows["speeds"] == "1 to 2"
    assert rows["bridges"] == "1 of each layer"


def test_a_proposal_is_shown_with_its_reason():
    rebalancer = Rebalancer(TOPOLOGY, 2)
    rebalancer.observe(LOAD)
    first = rebalancer.propose()
    rows = shown(first)
    assert rows["reason"] == first.reason
    assert rows["moves"] == "all of the plan: none was in use"
    rebalancer.use(first.plan)
    rebalancer.observe(LOAD[::-1])
    second = rebalancer.propose()
    rows = shown(second)
    assert rows["moves"] == str(second.moves)
    assert rows["expected balancedness"] == f"{second.expected_balancedness:.4f}"
    assert rows["cause"] == second.cause


def test_a_replay_is_shown():
    result = replay(np.array([LOAD] * 3), once(TOPOLOGY))
    rows = shown(result)
    assert rows["GPU balancedness"] == f"{result.balancedness:.4f}"
    assert rows["windows"] == "2"
    assert rows["moved per replan"] == "0.00% of all slots"


def test_a_summary_is_shown():
    nodes = Topology(4, 8, 4, 2)
    summary = in_order_plan(1, nodes).summary([[90, 30, 10, 10]])
    rows = shown(summary)
    assert rows["GPU balancedness"].startswith(f"{summary.balancedness:.4f}, at most ")
    assert rows["busiest node"] == "1.0000 times the load of the mean node"
    summary = make_plan([[90, 30, 10, 10]], Topology(4, 4, 4, 2)).summary([[90, 30, 10, 10]])
    assert rows.keys() == shown(summary).keys()
    assert shown(summary)["busiest node"].endswith(f"; node {summary.busiest_node} in 1 layers")


def test_moves_by_number_and_by_slice():
    listed = list(MOVES)
    assert len(listed) > 3
    assert [MOVES[i] for i in range(len(MOVES))] == listed
    assert MOVES[-1] == listed[-1]
    assert MOVES[np.int64(1)] == listed[1]
    assert all(type(value) is int for value in MOVES[0])
    assert list(MOVES[1:3]) == listed[1:3]
    assert list(MOVES[::2]) == listed[::2]
    assert MOVES[1:3].num_fetched == sum(move.gpu != move.source_gpu for move in listed[1:3])
    assert len(MOVES[5:5]) == 0


@pytest.mark.parametrize("place", [len(MOVES), -len(MOVES) - 1])
def test_a_move_that_is_not_there(place):
    with pytest.raises(IndexError, match=f"move {place} is out of range: there are {len(MOVES)}"):
        MOVES[place]


def test_data_frames():
    pytest.importorskip("pandas")
    nodes = Topology(4, 8, 4, 2)
    plan = make_plan(LOAD, nodes, moe_layer_ids=[3, 7])
    frame = plan.to_dataframe()
    assert list(frame) == ["layer_id", "slot", "gpu", "node", "expert", "rank"]
    assert frame.shape == (16, 6)
    for i, layer in enumerate((3, 7)):
        rows = frame[frame.layer_id == layer]
        assert rows.slot.tolist() == list(range(8))
        assert rows.gpu.tolist() == nodes.gpu_of_slot.tolist()
        assert rows.node.tolist() == [0] * 4 + [1] * 4
        assert rows.expert.tolist() == plan.phy2log[i].tolist()
        assert rows["rank"].tolist() == plan.phyrank[i].tolist()
    frame.loc[0, "expert"] = 3  # a copy, not the plan's own memory
    frame = MOVES.to_dataframe()
    assert [tuple(row) for row in frame.itertuples(index=False)] == [tuple(m) for m in MOVES]


def test_without_pandas_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for thing in (MADE, MOVES):
        with pytest.raises(ModuleNotFoundError, match=r"^pandas is not installed: run pip install"):
            thing.to_dataframe()
