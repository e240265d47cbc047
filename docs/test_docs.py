"""What the pages claim: complete, and measured on the algorithm itself."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import bridges
import numba
import numpy as np
import pytest
import replays
import weighted_tables
from ablation import PLANNED, VARIANTS, Variant, plan_variant, print_table, read_or_make

import eplb_np

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def test_api_reference_has_every_public_name_and_no_other() -> None:
    plans, rest = (DOCS / "api.md").read_text().split("## Replays")
    replayed, rest = rest.split("## Workloads")
    loads, on_gpu = rest.split("## On a GPU")
    directive = re.compile(r"^\.\. auto(?:function|class|data):: (\S+)$", re.MULTILINE)
    modules = {"cuda", "replay", "workloads"}
    assert set(directive.findall(plans)) == set(eplb_np.__all__) - modules
    assert set(directive.findall(replayed)) == set(eplb_np.replay.__all__)
    assert set(directive.findall(loads)) == set(eplb_np.workloads.__all__)
    assert set(directive.findall(on_gpu)) == set(eplb_np.cuda.__all__)


PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/*.md", "docs/studies/*.md"]


@pytest.mark.parametrize("pages", PAGES)
def test_links_to_files_lead_somewhere(pages: str) -> None:
    sources = sorted(ROOT.glob(pages))
    assert sources
    for source in sources:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", source.read_text()):
            assert (source.parent / target).exists(), f"{source.name} links to {target}"


def small_load() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(0, 9, (4, 16)).astype(float)  # many ties and zeros


@pytest.mark.parametrize("sizes", [(20, 4, 2, 4), (24, 8, 1, 1), (16, 4, 4, 8)])
def test_whole_ablation_is_the_hybrid_policy(sizes: tuple[int, int, int, int]) -> None:
    load = small_load()
    topology = eplb_np.Topology(load.shape[1], *sizes)
    planned = plan_variant(load, topology, Variant(tail=True, refine=True))
    hybrid = eplb_np.make_plan(load, topology)
    assert planned.plan.phy2log.tobytes() == hybrid.phy2log.tobytes()
    assert planned.plan.phyrank.tobytes() == hybrid.phyrank.tobytes()


def test_bare_ablation_is_as_balanced_as_the_deepseek_policy() -> None:
    load = small_load()
    topology = eplb_np.Topology(16, 20, 4, 2, 4)
    planned = plan_variant(load, topology, Variant(tail=False, refine=False))
    deepseek = eplb_np.make_plan(load, topology, policy="deepseek")
    assert planned.plan.balancedness(load) == pytest.approx(deepseek.balancedness(load))


@pytest.mark.slow
def test_ablation_prints_a_row_for_each_deployment_and_variant(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_table(read_or_make([]))
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == len(PLANNED) * len(VARIANTS)
    assert all("| 0 of " in row for row in rows)


PICTURES = DOCS / "pictures"
MAX_PICTURE_BYTES = 60_000


def test_pictures_are_small_and_shown() -> None:
    pages = "".join(page.read_text() for page in [*DOCS.glob("*.md"), ROOT / "README.md"])
    pictures = sorted(PICTURES.glob("*.svg"))
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < MAX_PICTURE_BYTES
        assert f"pictures/{picture.name})" in pages
        ElementTree.parse(picture)


few_profiles = eplb_np.workloads.related_profiles(eplb_np.workloads.skewed_load(1, 256), 3)
needs_jit = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="NUMBA_DISABLE_JIT is set")


@needs_jit
def test_replays_print_a_row_for_each_trace_and_deployment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    replays.print_table(few_profiles, num_seeds=1, num_windows=12)
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(replays.SCENARIOS) * len(replays.REPLAYED)
    assert {row.count("|") for row in rows} == {header.count("|")}


@needs_jit
def test_what_a_lost_gpu_takes_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    replays.print_lost_gpu(few_profiles)
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == 5 * 4 + 1  # one stays hierarchical; with one layer, no total binds
    assert sum("lost, repaired only" in row for row in rows) == 4


@needs_jit
def test_weighted_tables_print_a_row_for_each_trace_and_plan(
    capsys: pytest.CaptureFixture[str],
) -> None:
    weighted_tables.print_table(few_profiles, num_seeds=1, num_windows=10, judged=["288/8/4/32"])
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(weighted_tables.SCENARIOS) * 2
    assert {row.count("|") for row in rows} == {header.count("|")}


@needs_jit
def test_bridges_raise_the_balance_and_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    bridges.print_table(few_profiles, num_rounds=4, bridges=(0, 4))
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == len(bridges.SCENARIOS) * 2
    assert {row.count("|") for row in rows} == {header.count("|")}
    cells = [[float(cell) for cell in row.split("|")[2:-1]] for row in rows]
    for (_, none, _, bound, at_most, crossing, least), (_, used, _, best, _, some, _) in (
        cells[:2],
        cells[2:],
    ):
        assert none == crossing == least == 0
        assert bound <= at_most + 1e-3
        assert 0 < used <= 4
        assert best > bound
        assert some > 0


@needs_jit
def test_pictures_are_drawn() -> None:
    pytest.importorskip("matplotlib")
    import pictures

    figures = pictures.draw_all(few_profiles, num_windows=12)
    assert {f"{name}.svg" for name in figures} == {path.name for path in PICTURES.glob("*.svg")}
