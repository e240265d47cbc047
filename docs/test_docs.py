"""What the pages claim: complete, and measured on the algorithm itself."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from ablation import DEPLOYMENTS, VARIANTS, Variant, plan_variant, print_table, read_or_make

import eplb_np

DOCS = Path(__file__).parent
ROOT = DOCS.parent


def test_api_reference_has_every_public_name_and_no_other() -> None:
    plans, loads = (DOCS / "api.md").read_text().split("## Workloads")
    loads, on_gpu = loads.split("## On a GPU")
    directive = re.compile(r"^\.\. auto(?:function|class):: (\S+)$", re.MULTILINE)
    assert set(directive.findall(plans)) == set(eplb_np.__all__) - {"workloads", "cuda"}
    assert set(directive.findall(loads)) == set(eplb_np.workloads.__all__)
    assert set(directive.findall(on_gpu)) == set(eplb_np.cuda.__all__)


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs"])
def test_links_to_files_lead_somewhere(page: str) -> None:
    sources = sorted(DOCS.glob("*.md")) if page == "docs" else [ROOT / page]
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
    assert len(rows) == len(DEPLOYMENTS) * len(VARIANTS)
    assert all("| 0 of " in row for row in rows)
