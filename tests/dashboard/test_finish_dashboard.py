"""What the dashboard shows once it is finished, without a look at it: `make dashboard` has that."""

import json

import pytest

finish_dashboard = pytest.importorskip(
    "finish_dashboard", reason="the benchmarks are not in this copy"
)

HEAD = "document.currentScript.json = "


@pytest.fixture
def folder(results):
    """Benchmarks that asv has published."""
    made = results((0.9, 1e-4), (0.9, 1e-4), (0.8, 2e-4), (0.8, 2e-4))
    made.html = made.publish()
    return made


def content(html, name):
    """What a script of data hands over."""
    text = (html / f"{name}.js").read_text()
    assert text.startswith(HEAD)
    return json.loads(text.removeprefix(HEAD).rstrip(";\n"))


@pytest.fixture
def finished(folder, capsys):
    finish_dashboard.finish(folder.path)
    folder.printed = capsys.readouterr().out
    return folder


def test_what_was_skipped_is_hidden_and_what_failed_is_not(finished):
    shown = ["plans.time_plan", "quality.track_gpu_balancedness", "stages.time_broken"]
    assert sorted(content(finished.html, "index.json")["benchmarks"]) == shown
    (listed,) = (f for f in finished.html.rglob("summary.json.js"))
    rows = content(listed.parent, "summary.json")
    assert sorted({row["name"] for row in rows}) == shown
    assert not list(finished.html.rglob("*gpu.time_plan*"))
    assert "not shown: gpu.time_plan\n" in finished.printed


def test_the_scale_is_logarithmic_where_values_span_a_decade(finished):
    benchmarks = content(finished.html, "index.json")["benchmarks"]
    assert {name: benchmark["log_scale"] for name, benchmark in benchmarks.items()} == {
        "plans.time_plan": True,
        "quality.track_gpu_balancedness": False,
        "stages.time_broken": False,
    }


@pytest.mark.parametrize(
    ("values", "spans"),
    [([1, 10], True), ([1, 9.9], False), ([0, 10], False), ([None, 10], False), (5, False)],
)
def test_a_decade(values, spans):
    assert finish_dashboard.spans_a_decade(values) is spans


def test_all_data_are_scripts_and_listed(finished):
    assert not list(finished.html.rglob("*.json"))
    files = content(finished.html, "index.json")["files"]
    assert {"index.json", "info.json", "regressions.json"} < set(files)
    scripts = (file.relative_to(finished.html) for file in finished.html.rglob("*.json.js"))
    assert sorted(files) == sorted(file.as_posix().removesuffix(".js") for file in scripts)


def test_the_page_lists_our_regressions(finished):
    rows = {row[0]: row[1:] for row in content(finished.html, "regressions.json")["regressions"]}
    assert sorted(rows) == [
        "plans.time_plan('large')",
        "plans.time_plan('small')",
        "quality.track_gpu_balancedness",
    ]
    path, state, index, last, best, jumps = rows["quality.track_gpu_balancedness"]
    assert (finished.html / f"{path}.js").exists()
    assert (state, index, last, best) == ({}, None, 0.8, 0.9)
    revisions = content(finished.html, "index.json")["revision_to_hash"]
    ((before, revision, *values),) = jumps
    assert revisions[str(revision)] == finished.commits[2]
    assert (before, values) == (None, [0.9, 0.8])  # the commit before was measured, too
    assert rows["plans.time_plan('large')"][2] == 1
    assert not list(finished.html.glob("*.xml"))


def test_the_page_loads_what_was_added(finished):
    page = (finished.html / "index.html").read_text()
    asv, own, pages = (page.index(f'src="{n}.js"') for n in ("asv", "dashboard", "graphdisplay"))
    assert asv < own < pages
    assert 'href="dashboard.css"' in page
    assert 'name="viewport"' in page
    assert {"dashboard.js", "dashboard.css"} <= {file.name for file in finished.html.iterdir()}


def test_finishing_twice_is_refused(finished):
    with pytest.raises(ValueError, match="run `asv publish` first, each time"):
        finish_dashboard.finish(finished.path)


def test_an_asv_with_other_lines_is_refused_before_anything_changes(folder):
    script = folder.html / "regressions.js"  # not the first that is changed
    script.write_text(script.read_text().replace("feed_div", "feed"))
    before = {file: file.read_bytes() for file in folder.html.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=r"asv's regressions\.js has no .* change CHANGED_LINES"):
        finish_dashboard.finish(folder.path)
    assert {f: f.read_bytes() for f in folder.html.rglob("*") if f.is_file()} == before
