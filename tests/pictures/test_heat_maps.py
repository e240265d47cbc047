"""Heat maps: loads of GPUs, and numbers of replicas."""

import numpy as np
import pytest
from picture_cases import (
    LOAD,
    MADE,
    NODES,
    ONE_EACH,
    SPARE,
    colour_bar,
    panels,
    title_of,
)  # fmt: skip
from support import refused

from eplb_np import Plan, Topology, in_order_plan, make_plan, pictures


def shares_of(figure):
    return [np.ma.getdata(axes.images[0].get_array()) for axes in panels(figure)]


def test_each_cell_is_a_gpu_in_means_of_its_layer():
    figure = pictures.gpu_loads(ONE_EACH, LOAD)
    (shares,) = shares_of(figure)
    np.testing.assert_allclose(shares, LOAD / [[2.5], [2.0]])
    assert title_of(figure) == "The busiest GPU carries 2.44 times the mean"  # 11 / 4.5
    assert "the most in one layer is 2.50" in pictures.description(figure).lower()


def test_before_and_after_have_one_scale():
    figure = pictures.gpu_loads(MADE, LOAD, before=ONE_EACH)
    images = [axes.images[0] for axes in panels(figure)]
    assert [image.get_clim() for image in images] == [(0.0, 2.5)] * 2
    before, after = shares_of(figure)
    np.testing.assert_allclose(before, LOAD / [[2.5], [2.0]])
    np.testing.assert_allclose(after, MADE.gpu_load(LOAD) / [[2.5], [2.0]])
    after = 1 / MADE.balancedness(LOAD)
    assert title_of(figure) == (
        f"The busiest GPU carries 2.44 times the mean before, {after:.2f} after"
    )
    names = [axes.get_title(loc="left") for axes in panels(figure)]
    assert names == ["before: by hand", f"after: {MADE.policy}"]


def test_layers_have_their_ids_and_nodes_their_lines():
    (axes,) = panels(pictures.gpu_loads(ONE_EACH, LOAD))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["3", "7"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["node 0", "node 1"]
    assert axes.get_xticks().tolist() == [0.5, 2.5]
    assert [line.get_xdata()[0] for line in axes.lines] == [1.5]


@pytest.mark.parametrize(("nodes", "label", "lines"), [(1, "GPU", 0), (8, "node, 2 GPUs each", 7),
                                                       (16, "GPU", 15)])  # fmt: skip
def test_many_nodes_have_no_names(nodes, label, lines):
    plan = in_order_plan(20, Topology(16, 16, 16, nodes))
    (axes,) = panels(pictures.gpu_loads(plan, np.ones((20, 16))))
    assert axes.get_xlabel() == label
    assert len(axes.lines) == lines
    assert len(axes.get_yticks()) <= 6


def test_extreme_loads_do_not_darken_the_others():
    load = np.ones((2, 16))
    load[0, 3] = 100
    figure = pictures.gpu_loads(in_order_plan(2, Topology(16, 16, 16)), load)
    assert panels(figure)[0].images[0].get_clim() == (0.0, 3.0)
    assert panels(figure)[0].images[0].colorbar.extend == "max"
    assert "13.91" in pictures.description(figure)
    small = pictures.gpu_loads(ONE_EACH, LOAD)
    assert panels(small)[0].images[0].colorbar.extend == "neither"


def test_gpus_that_are_gone_are_marked_and_slow_ones_take_longer():
    gone = Topology(4, 8, 4, 2, active_gpus=[0, 1, 3], gpu_speeds=[2, 1, 1, 1])
    plan = make_plan(LOAD, gone, policy="refined")
    figure = pictures.gpu_loads(plan, LOAD)
    (axes,) = panels(figure)
    shares = axes.images[0].get_array()
    assert np.ma.getmaskarray(shares)[:, 2].all() or np.isnan(shares[:, 2]).all()
    np.testing.assert_allclose(
        shares[:, [0, 1, 3]], plan.gpu_time(LOAD)[:, [0, 1, 3]] / [[2.5], [2.0]]
    )
    assert title_of(figure).startswith("The busiest GPU takes ")
    assert colour_bar(figure).get_xlabel().startswith("time of a GPU")


def test_loads_of_all_layers_of_the_model():
    whole = np.zeros((8, 4))
    whole[[3, 7]] = LOAD
    before = in_order_plan(2, NODES)  # its ids are 0 and 1
    for drawn in (pictures.gpu_loads(ONE_EACH, whole, before=before),
                  pictures.gpu_loads(ONE_EACH, LOAD, before=before)):  # fmt: skip
        for shares in shares_of(drawn):
            np.testing.assert_allclose(shares, LOAD / [[2.5], [2.0]])


def test_no_load_is_drawn():
    figure = pictures.gpu_loads(ONE_EACH, np.zeros((2, 4)))
    assert (shares_of(figure)[0] == 0).all()
    assert title_of(figure) == "The busiest GPU carries 1.00 times the mean"
    pictures.gpu_loads(MADE, LOAD, split="best")


def test_replicas_of_each_expert():
    (axes,) = panels(pictures.replicas(MADE))
    assert axes.images[0].get_array().tolist() == MADE.logcnt.tolist()
    assert axes.get_xlabel() == "expert"
    figure = pictures.replicas(MADE, LOAD)
    order = np.argsort(-LOAD, axis=1, kind="stable")
    (axes,) = panels(figure)
    assert axes.images[0].get_array().tolist() == (
        np.take_along_axis(MADE.logcnt, order, axis=1).tolist()
    )
    several = (MADE.logcnt > 1).mean()
    assert title_of(figure) == (
        f"{several:.0%} of the experts have more than one replica, and at most {MADE.logcnt.max()}"
    )


def test_sorted_experts_with_one_replica_are_left_out():
    load = np.ones((3, 32))
    load[:, 5] = 100
    plan = make_plan(load, Topology(32, 34, 2), policy="hybrid")
    (axes,) = panels(pictures.replicas(plan, load))
    assert axes.get_xlabel() == "expert, most loaded first; the other 16 have one"
    assert axes.images[0].get_array().tolist() == [[3] + [1] * 15] * 3
    (axes,) = panels(pictures.replicas(plan))
    assert axes.images[0].get_array().shape == (3, 32)


def test_colours_of_replicas():
    one = pictures.replicas(ONE_EACH)
    assert [text.get_text() for text in colour_bar(one).get_xticklabels()] == ["1"]
    assert title_of(one) == "0% of the experts have more than one replica, and at most 1"
    many = Plan([[0] * 15 + [1]], [[*range(15), 0]], Topology(2, 16, 4), "by hand")
    figure = pictures.replicas(many)
    (axes,) = panels(figure)
    assert axes.images[0].get_array().tolist() == [[9, 1]]
    names = [text.get_text() for text in colour_bar(figure).get_xticklabels()]
    assert names == [*map(str, range(1, 9)), "9 or more"]
    colours = axes.images[0].cmap(axes.images[0].norm([1, 2, 9]))
    assert len({tuple(colour) for colour in colours}) == 3


def test_what_cannot_be_drawn():
    with refused("load has shape (2, 5)"):
        pictures.gpu_loads(MADE, np.ones((2, 5)))
    with refused("load has shape (2, 5)"):
        pictures.replicas(MADE, np.ones((2, 5)))
    with refused("before=Plan(3 layers", "give plans of the same layers"):
        pictures.gpu_loads(MADE, LOAD, before=in_order_plan(3, SPARE))
    with refused("plan must be a Plan, not ndarray"):
        pictures.gpu_loads(LOAD, LOAD)
    with refused("before must be a Plan, not str"):
        pictures.gpu_loads(MADE, LOAD, before="plan.json")
    with refused("theme='blue' is unknown: give one of light, dark, transparent"):
        pictures.replicas(MADE, theme="blue")
