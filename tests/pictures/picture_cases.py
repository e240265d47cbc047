"""Plans and loads that tests draw, and what is read back from pictures."""

import numpy as np

from eplb_np import Plan, Topology, make_plan

# Of these two layers, GPU loads are [6, 2, 1, 1] and [1, 1, 1, 5] in units of the load.
NODES = Topology(num_experts=4, num_replicas=4, num_gpus=4, num_nodes=2)
LOAD = np.array([[6.0, 2, 1, 1], [1, 1, 1, 5]])
ONE_EACH = Plan(np.tile(np.arange(4), (2, 1)), np.zeros((2, 4), int), NODES, "by_hand", [3, 7])
SPARE = Topology(num_experts=4, num_replicas=8, num_gpus=4, num_nodes=2)
MADE = make_plan(LOAD, SPARE, moe_layer_ids=[3, 7])


def panels(figure):
    """The axes that show data; those of a colour bar have none."""
    return [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]


def colour_bar(figure):
    (bar,) = (axes for axes in figure.axes if axes.get_label() == "<colorbar>")
    return bar


def title_of(figure):
    """What is written above the picture, as one line."""
    return " ".join(figure.get_suptitle().split())


def line_named(axes, start):
    (line,) = (line for line in axes.lines if str(line.get_label()).startswith(start))
    return line


def texts(figure):
    """All text of a picture that somebody can see."""
    from matplotlib.text import Text

    figure.canvas.draw()
    axis = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    ticks = {tick for each in axis for tick in (*each.majorTicks, *each.minorTicks)}
    drawn = {tick for each in axis for tick in each._update_ticks()}  # within the limits
    unseen = {label for tick in ticks - drawn for label in (tick.label1, tick.label2)}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in unseen
    ]
