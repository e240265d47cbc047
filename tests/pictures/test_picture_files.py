"""Files of pictures: PNG and SVG, whole or not at all, the same bytes each time."""

import os
import re
from xml.etree import ElementTree

import pytest
from picture_cases import LOAD, MADE, ONE_EACH
from support import output_of, refused

from eplb_np import pictures


def draw():
    return pictures.gpu_loads(MADE, LOAD, before=ONE_EACH)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PNG"])
def test_the_same_bytes_each_time(tmp_path, suffix):
    contents = []
    for name in ("first", "second"):
        pictures.save(draw(), tmp_path / f"{name}{suffix}")
        contents.append((tmp_path / f"{name}{suffix}").read_bytes())
    figure = draw()
    pictures.save(figure, tmp_path / f"third{suffix}")
    pictures.save(figure, tmp_path / f"third{suffix}")
    assert contents == [(tmp_path / f"third{suffix}").read_bytes()] * 2
    assert len(list(tmp_path.iterdir())) == 3


def test_the_same_bytes_in_another_process(tmp_path):
    paths = [tmp_path / f"{name}.svg" for name in "ab"]
    for path in paths:
        output_of(f"""
import eplb_np
plan = eplb_np.in_order_plan(2, eplb_np.Topology(4, 8, 4, 2))
eplb_np.pictures.save(eplb_np.pictures.gpu_loads(plan, [[6, 2, 1, 1]] * 2), {str(path)!r})
""")
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_svg_is_sound_and_says_what_it_shows(tmp_path):
    path = tmp_path / "picture.svg"
    figure = draw()
    pictures.save(figure, path)
    text = path.read_text()
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "<dc:date>" not in text
    assert "Matplotlib" not in text
    assert pictures.description(figure) in "".join(root.itertext())
    ids = re.findall(r'id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for used in re.findall(r'(?:url\(|href=")#([^")]+)', text):
        assert used in ids


def test_png_names_no_program(tmp_path):
    pictures.save(draw(), tmp_path / "picture.png")
    content = (tmp_path / "picture.png").read_bytes()
    assert b"Software" not in content
    assert b"The busiest GPU carries" in content


def test_any_figure_can_be_saved(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_subplot().plot([1, 2])
    pictures.save(figure, tmp_path / "plain.svg")
    pictures.save(figure, tmp_path / "plain.png")
    assert pictures.description(figure) == ""


def test_a_failure_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "picture.svg"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda file: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        pictures.save(draw(), path)
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.svg"]


def test_what_cannot_be_written(tmp_path):
    with refused("picture.pdf: unknown file suffix '.pdf': use one of .png, .svg"):
        pictures.save(draw(), "picture.pdf")
    with refused("figure must be a Figure, not list"):
        pictures.save([], tmp_path / "picture.svg")
    with refused("figure must be a Figure, not str"):
        pictures.description("picture.svg")
    with pytest.raises(FileNotFoundError):
        pictures.save(draw(), tmp_path / "nowhere" / "picture.svg")
