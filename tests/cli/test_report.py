"""The report: a page that needs nothing else, with all its parts, and commands that run."""

import shlex
from importlib import import_module

import numpy as np
import pytest
from notebook_html import Page

from eplb_np import Plan, make_plan
from eplb_np.io import read_loads

pytest.importorskip("matplotlib", reason="Matplotlib is not installed")

SIZES = ("--gpus", "8", "--nodes", "2", "--groups", "4")
SECTIONS = ["What the load looks like", "What each policy would give", "What to buy",
            "What to move"]  # fmt: skip


@pytest.fixture
def history(files, made):
    """Six steps in order, in ``windows.npy``."""
    rng = np.random.default_rng(2)
    steps = made.load * rng.uniform(0.5, 1.5, (6, *made.load.shape))
    np.save(files / "windows.npy", steps)
    return steps


@pytest.fixture
def written(command, files):
    """Write a report, and read it."""

    def written(*args, given=b""):
        code, out, err = command("report", *args, "-o", "report.html", given=given)
        assert (code, err) == (0, "")
        text = (files / "report.html").read_text("utf-8")
        return text, Page(text), out

    return written


def attributes(page, tag):
    return [found for name, found in page.elements if name == tag]


def code_of(page):
    return [line for text in page.text_of("code") for line in text.split("\n")]


def commands_of(page):
    return [shlex.split(line) for line in code_of(page) if line.startswith("eplb-np ")]


def test_the_page_needs_nothing_from_elsewhere(written):
    text, page, _ = written("loads.npy", *SIZES)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert not page.tags() & {"script", "iframe", "object", "embed", "form", "video", "audio"}
    places = [
        (tag, name, value)
        for tag, found in page.elements
        for name, value in found.items()
        if name in ("src", "srcset", "href", "data", "poster", "action", "background")
    ]
    assert len(places) > 8
    for tag, name, value in places:
        assert value.startswith(("data:image/svg+xml;base64,", "#")), (tag, name, value[:60])
    assert not [name for _, found in page.elements for name in found if name.startswith("on")]
    style = "".join(page.text_of("style"))
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [found["content"] for found in attributes(page, "meta")
                 if found.get("http-equiv") == "Content-Security-Policy"]  # fmt: skip
    assert "default-src 'none'" in policy


def test_the_page_has_what_browsers_and_readers_want(written):
    text, page, _ = written("loads.npy", *SIZES)
    assert page.text_of("title") == ["Expert loads of loads.npy"]
    assert {"charset": "utf-8"} in attributes(page, "meta")
    assert any(found.get("name") == "viewport" and "width=device-width" in found["content"]
               for found in attributes(page, "meta"))  # fmt: skip
    assert [found["rel"] for found in attributes(page, "link")] == ["icon"]
    assert "prefers-color-scheme: dark" in "".join(page.text_of("style"))
    assert page.text_of("h2") == SECTIONS
    targets = [found["href"] for found in attributes(page, "a")]
    assert targets == [f"#{found['id']}" for found in attributes(page, "section")]
    images, sources = attributes(page, "img"), attributes(page, "source")
    assert len(images) == len(sources) == 4
    for image, source in zip(images, sources, strict=True):
        assert len(image["alt"]) > 60
        assert int(image["width"]) > 300
        assert int(image["height"]) > 100
        assert source["media"] == "(prefers-color-scheme: dark)"
        assert source["srcset"] != image["src"]
    assert len(text.encode()) < 3_000_000
    for found in attributes(page, "div"):
        if found.get("class") == "scroll":
            assert found["tabindex"] == "0"  # can be scrolled with keys
            assert found["aria-label"]


def test_the_numbers_are_those_of_the_commands(written, command, made):
    _, page, out = written("loads.npy", *SIZES, "--replicas", "16")
    plan = make_plan(made.rows, made.new.topology)
    before, after = 1 / made.old.balancedness(made.rows), 1 / plan.balancedness(made.rows)
    first, moves, buy = page.text_of("li")[:3]
    assert first.startswith(
        f"The busiest GPU carries {before:.2f} times the mean with experts in order, and "
        f"{after:.2f} times with a refined plan."
    )
    fetched = plan.moves_from(made.old).num_fetched
    assert moves.startswith(f"Move {fetched} replicas for it, ")
    assert buy.startswith("Buy ")
    assert first in out
    share = made.rows / made.rows.mean(axis=1, keepdims=True)
    layer, expert = np.unravel_index(share.argmax(), share.shape)
    cells = [text for tag, text in page.texts if tag in ("th", "td")]
    place = cells.index(f"{share.max():.2f}")
    assert cells[place - 2 : place] == [str(made.ids[layer]), str(expert)]


@pytest.mark.parametrize("options", [(), ("--first-window", "2", "--windows", "3")])
def test_every_command_of_the_page_runs(written, command, history, files, options):
    _, page, _ = written("windows.npy", "--in-order", *SIZES, "--expert-bytes", "1000", *options)
    run_all(page, command)
    names = [words[1] for words in commands_of(page)]
    assert names == ["compare", "replay", "sweep", "plan", "show", "diff"]
    for words in commands_of(page)[:3]:
        assert set(options) <= set(words)
    assert Plan.load("in_order.json").moe_layer_ids == (1, 3)
    for name in ("plan.json", "plan.svg", "loads.svg"):
        assert (files / name).stat().st_size > 0


def run_all(page, command):
    """Run all code of a page, in its order."""
    for code in page.text_of("code"):
        if not code.startswith("eplb-np "):
            exec(code, {})
            continue
        for line in code.split("\n"):
            name, *words = shlex.split(line)
            assert name == "eplb-np"
            done, out, err = command(*words)
            assert (done, err) == (0, ""), line
            assert out


def test_a_history_is_replayed_and_judged_on_the_next_steps(written, history):
    _, page, _ = written("windows.npy", "--in-order", *SIZES)
    assert len(attributes(page, "img")) == 5
    text = " ".join(data for _, data in page.texts)
    assert "made for the step to come" in text
    assert "on steps that the plans were not made from" in text
    assert "of the load of a step lies where it lay in the step before" in text
    headers = page.text_of("th")
    assert {"mend", "next steps", "moved per replan", "in-order"} <= set(headers)
    replay = next(words for words in commands_of(page) if words[1] == "replay")
    assert "in-order" not in replay[-1].split(",")


def test_from_the_plan_in_use(written, command, made):
    _, page, out = written("loads.npy", "--current", "old.json")
    mended = 1 / Plan.load("old.json").balancedness(made.rows)
    assert f"carries {mended:.2f} times the mean with the plan in use" in out
    assert "times with that plan mended" in out
    headers = page.text_of("th")
    assert {"current", "mended", "moved"} <= set(headers)
    assert "in-order" in headers
    names = [words[1] for words in commands_of(page)]
    assert names == ["compare", "sweep", "plan", "show", "diff"]
    assert not any("in_order_plan" in line for line in code_of(page))
    run_all(page, command)
    plan = next(words for words in commands_of(page) if words[1] == "plan")
    assert plan[2:5] == ["loads.npy", "--current", "old.json"]


def test_a_heavy_node_is_pointed_out(written, files, made):
    load = np.ones((2, 12))
    load[:, :3] = 50
    np.save(files / "heavy.npy", load)
    _, page, out = written("heavy.npy", *SIZES)
    said = "The busiest node carries 1.92 times the mean. No plan can help that"
    assert any(text.startswith(said) for text in page.text_of("li"))
    assert said in out
    _, page, _ = written("heavy.npy", "--gpus", "8", "--nodes", "2")  # global placement
    assert not any(text.startswith("The busiest node") for text in page.text_of("li"))


def test_titles_are_short(written, files):
    (files / "folder").mkdir()
    (files / "loads.npy").rename(files / "folder" / "loads.npy")
    _, page, _ = written("folder/loads.npy", *SIZES)
    assert page.text_of("title") == ["Expert loads of loads.npy"]
    assert any(text.startswith("folder/loads.npy (numpy): 2 MoE") for text in page.text_of("p"))


def test_nothing_to_move(written, made):
    _, page, _ = written("loads.npy", "--current", "new.json")
    assert "Nothing has to be moved." in page.text_of("li")
    assert "The GPUs that fetch most" not in page.text_of("caption")


def test_names_from_files_are_escaped_and_quoted(written, command, files):
    name = '-<img src=x onerror="alert(1)">\'&amp; $(id)\n.npy'
    (files / "loads.npy").rename(files / name)
    text, page, _ = written(f"./{name}", *SIZES)
    assert "<img src=x" not in text
    assert "onerror" not in str([attribute for _, found in page.elements for attribute in found])
    assert '<img src=x onerror="alert(1)">' in page.text_of("title")[0]
    sweep = next(code for code in page.text_of("code") if code.startswith("eplb-np sweep"))
    _, *words = shlex.split(sweep)
    assert words[1] == f"./{name}"
    assert command(*words)[0] == 0


def test_loads_from_standard_input(written, files, command):
    given = (files / "loads.npy").read_bytes()
    _, page, _ = written("-", *SIZES, given=given)
    assert page.text_of("title") == ["Expert loads of standard input"]
    assert "In the commands, LOADS is what came from standard input." in page.text_of("p")
    assert commands_of(page)[0][:3] == ["eplb-np", "compare", "LOADS"]
    (files / "loads.npy").rename(files / "LOADS")
    run_all(page, command)


def test_to_standard_output(command):
    code, out, err = command("report", "loads.npy", *SIZES, "-o", "-")
    assert code == 0
    assert out.startswith("<!DOCTYPE html>")
    assert out.endswith("</html>\n")
    assert "written to" in err


def test_format_and_order_are_kept_in_the_commands(written, files, history, command):
    _, page, _ = written("windows.npy", "--format", "numpy", "--summed", *SIZES)
    for words in commands_of(page):
        assert words[-1] == "plan.svg" or "windows.npy" in words
        place = words.index("windows.npy")
        assert words[place + 1 : place + 4] == ["--format", "numpy", "--summed"]
    assert "loads = io.read_loads('windows.npy', 'numpy', in_order=False)" in code_of(page)
    assert read_loads("windows.npy", "numpy", in_order=False).num_steps == 6


def test_notes_and_layers_are_not_endless(written, files):
    load = np.zeros((600, 8))
    load[::2] = np.arange(1, 9)
    np.save(files / "many.npy", load)
    text, page, _ = written("many.npy", "--gpus", "4")
    assert max(len(data) for name, data in page.texts if name == "td") <= 303
    assert len(text) < 3_000_000


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("loads.npy",), 2, "--output"),
        (("loads.npy", "-o", "loads.npy"), 2, "it is the file that is read"),
        (("loads.npy", "--current", "old.json", "-o", "old.json"), 2, "it is the file that is"),
        (("loads.npy", "-o", "nowhere/report.html"), 2, "nowhere"),
        (("missing.npy", "-o", "report.html"), 2, "missing.npy"),
        (("loads.npy", "--gpus", "5", "--nodes", "2", "-o", "report.html"), 2, "--gpus=5"),
        (("loads.npy", "--current", "loads.npy", "-o", "report.html"), 2, "loads.npy"),
    ],
)
def test_what_cannot_be_done(command, files, args, code, said):
    done, out, err = command("report", *args)
    assert (done, out) == (code, "")
    assert err.count("\n") == 1
    assert said in err
    assert not (files / "report.html").exists()


def test_without_matplotlib_one_line_says_what_to_install(command, monkeypatch):
    def missing(*_):
        raise ModuleNotFoundError("matplotlib is not installed: run pip install", name="matplotlib")

    monkeypatch.setattr(import_module("eplb_np.cli.report"), "new_picture", missing)
    code, _, err = command("report", "loads.npy", "-o", "report.html")
    assert (code, err.count("\n")) == (1, 1)
    assert "matplotlib is not installed: run pip install" in err
