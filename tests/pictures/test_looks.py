"""Whether pictures can be read: colours, sizes, nothing cut off. And that they leave no traces."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from picture_cases import LOAD, MADE, ONE_EACH, panels, texts
from support import output_of
from test_curves import BALANCED, MOVING, row

from eplb_np import Topology, in_order_plan, pictures, workloads
from eplb_np.pictures.files import drawn
from eplb_np.pictures.themes import THEMES
from eplb_np.sweeps.sweeping import Sweep

PHONE = 358  # pixels of a phone's 390 that are left beside margins
WIDE = in_order_plan(58, Topology(256, 288, 72, 4))
SWEPT = Sweep((row(4, 2, 0.80), row(4, 3, 0.975), row(400, 4, 0.981)), (), 2, 8, 1)
DRAW = {
    "gpu_loads": lambda theme: pictures.gpu_loads(MADE, LOAD, before=ONE_EACH, theme=theme),
    "many_gpu_loads": lambda theme: pictures.gpu_loads(WIDE, load_of(WIDE), theme=theme),
    "replicas": lambda theme: pictures.replicas(MADE, LOAD, theme=theme),
    "expert_loads": lambda theme: pictures.expert_loads([LOAD, LOAD[::-1]], theme=theme),
    "replays": lambda theme: pictures.replays(
        {"a planner": BALANCED, f"another planner, {'which is long, ' * 9}": MOVING}, theme=theme
    ),
    "sweep_curves": lambda theme: pictures.sweep_curves(SWEPT, theme=theme),
    "split_batch": lambda theme: pictures.split_batch(MADE, LOAD, theme=theme),
}


def load_of(plan):
    return workloads.skewed_load(plan.num_layers, plan.topology.num_experts)


def luminance(colour):
    from matplotlib.colors import to_rgb

    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_colours_stand_out_from_the_paper(theme):
    colours = THEMES[theme]
    papers = ["#ffffff", "#000000"] if colours.paper == "none" else [colours.paper]
    for paper in papers:
        assert contrast(colours.ink, paper) >= (4 if theme == "transparent" else 7)
        for colour in colours.series:
            assert contrast(colour, paper) >= (2.4 if theme == "transparent" else 3)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", DRAW)
def test_text_can_be_read_on_a_phone_and_nothing_is_cut_off(name, theme):
    from matplotlib.colors import to_hex

    figure = DRAW[name](theme)
    width = figure.get_size_inches()[0] * 96
    found = texts(figure)
    assert len(found) > 5
    frame = figure.bbox
    for text in found:
        assert to_hex(text.get_color()) == THEMES[theme].ink, text
        assert text.get_fontsize() / 72 * 96 * PHONE / width >= 10, text
        box = text.get_window_extent()
        assert box.x0 >= frame.x0 - 1, text
        assert box.x1 <= frame.x1 + 1, text
        assert box.y0 >= frame.y0 - 1, text
        assert box.y1 <= frame.y1 + 1, text
    labels = [axes.yaxis.label for axes in panels(figure)]
    for axes, label in zip(panels(figure), labels, strict=True):
        if len(panels(figure)) > 1:  # one does not run into the other's
            assert label.get_window_extent().height <= axes.get_tightbbox().height + 2, label


@pytest.mark.parametrize("name", DRAW)
def test_backgrounds(name):
    from matplotlib.colors import to_hex

    for theme in ("light", "dark"):
        assert to_hex(DRAW[name](theme).get_facecolor()) == THEMES[theme].paper
    assert DRAW[name]("transparent").patch.get_alpha() == 0


@pytest.mark.parametrize("name", DRAW)
def test_each_picture_says_what_it_shows(name):
    figure = DRAW[name]("light")
    said = pictures.description(figure)
    assert said.startswith(" ".join(figure.get_suptitle().split()))
    assert len(said) > len(figure.get_suptitle()) + 40


def test_titles_and_legends_do_not_overlap_the_axes():
    for name, draw in DRAW.items():
        figure = draw("light")
        figure.canvas.draw()
        boxes = [axes.get_tightbbox() for axes in figure.axes]
        others = [figure._suptitle.get_window_extent()]
        others += [legend.get_window_extent() for legend in figure.legends]
        for other in others:
            for box in boxes:
                apart = other.y0 >= box.y1 - 1 or other.y1 <= box.y0 + 1
                assert apart, name


@pytest.mark.parametrize("name", DRAW)
def test_notebooks_show_pictures_sharply(name):
    picture = DRAW[name]("light")
    pixels = picture.get_size_inches() * 96
    np.testing.assert_allclose(pixels, np.round(pixels), atol=1e-6)
    png, about = picture._repr_png_()
    assert png.startswith(b"\x89PNG")
    width, height = (int.from_bytes(png[place : place + 4], "big") for place in (16, 20))
    assert (width, height) == (2 * about["width"], 2 * about["height"])


def test_the_same_in_every_thread():
    names = list(DRAW) * 3
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: drawn(DRAW[name]("dark"), "svg"), names))
    for name, svg in zip(names, found, strict=True):
        assert svg == drawn(DRAW[name]("dark"), "svg"), name


def test_drawing_leaves_no_traces():
    code = """
import sys
import numpy as np
import eplb_np
assert "matplotlib" not in sys.modules
import matplotlib
before = matplotlib.rcParams.copy()  # to read all of them would import pyplot
plan = eplb_np.make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2)
figure = eplb_np.pictures.gpu_loads(plan, [[90, 30, 10, 10]])
eplb_np.pictures.replicas(plan)
figure._repr_png_()
print("matplotlib.pyplot" in sys.modules, dict.__eq__(matplotlib.rcParams, before))
"""
    assert output_of(code) == "False True"


def test_without_matplotlib_one_line_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "eplb_np.pictures.picture", raising=False)
    for name in [*sys.modules]:
        if name.partition(".")[0] == "matplotlib":
            monkeypatch.setitem(sys.modules, name, None)
    for draw in DRAW.values():
        with pytest.raises(ModuleNotFoundError, match=r"^matplotlib is not installed: run pip "):
            draw("light")
