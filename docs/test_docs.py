"""What the pages claim: complete, and measured on the algorithm itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import bridges
import command_page
import engines
import numba
import numpy as np
import pytest
import replays
import split_times
import splitting
import weighted_tables
from ablation import PLANNED, VARIANTS, Variant, plan_variant, print_table, read_or_make
from support import engine_modules

import eplb_np
import eplb_np.engines.metrics
import eplb_np.kernels
from eplb_np._interrupts import STOPPED
from eplb_np.cli import command
from eplb_np.cli.errors import BAD_INPUT, NOT_WRITTEN

DOCS = Path(__file__).parent
ROOT = DOCS.parent

needs_jit = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="NUMBA_DISABLE_JIT is set")


def test_reference_has_every_public_name_and_no_other() -> None:
    directive = re.compile(r"^\.\. auto(?:function|class|data):: (\S+)$", re.MULTILINE)
    found: dict[str, list[str]] = {}
    for page in (DOCS / "reference").glob("*.md"):
        _, *parts = re.split(r"^\.\. currentmodule:: (\S+)$", page.read_text(), flags=re.MULTILINE)
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            found.setdefault(name, []).extend(directive.findall(text))
    names = ("comparison", "cuda", "io", "pictures", "replay", "sweeps", "workloads")
    rooms = (*(getattr(eplb_np, name) for name in names), *engine_modules(), eplb_np.kernels)
    expected = {room.__name__: sorted(room.__all__) for room in rooms}
    expected["eplb_np"] = sorted(set(eplb_np.__all__) - set(names))
    source = (ROOT / "eplb_np" / "dispatch" / "jax.py").read_text()  # importing it needs JAX
    expected["eplb_np.dispatch.jax"] = sorted(
        re.findall(r"^(?:def|class) ([a-zA-Z]\w*)", source, re.MULTILINE)
    )
    assert {name: sorted(listed) for name, listed in found.items()} == expected


def test_every_page_of_the_reference_is_listed() -> None:
    index = (DOCS / "reference" / "index.md").read_text()
    pages = {page.stem for page in (DOCS / "reference").glob("*.md")} - {"index"}
    assert set(re.findall(r"\]\((\w+)\.md\)", index)) == pages
    assert set(re.findall(r"^[^|\n]+ <(\w+)>$", index, re.MULTILINE)) == pages


def test_the_page_of_files_has_every_format_and_what_it_can_do() -> None:
    page = (DOCS / "files.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \|([^|]*)\|([^|]*)\|", page, re.MULTILINE)

    def says(reads: bool, writes: bool) -> str:
        return ", ".join(["read"] * reads + ["written"] * writes)

    assert {name: (loads.strip(), plans.strip()) for name, loads, plans in rows} == {
        name: (
            says(row.reads_loads, row.writes_loads), says(row.reads_plans, row.writes_plans)
        )
        for name, row in eplb_np.io.FORMATS.items()
    }  # fmt: skip


def cells_of(row: str, text: str) -> list[str]:
    """Cells of the first table row that begins so, without marks and what is in brackets."""
    line = next(line for line in text.splitlines() if line.startswith(row))
    return [re.sub(r"\*|\(.*?\)", "", cell).strip() for cell in line.strip("|").split("|")]


def test_the_first_table_has_the_numbers_of_the_studies() -> None:
    """Those that ``docs/studies/replays.py`` and ``compare_peers.py`` have printed."""
    readme = (ROOT / "README.md").read_text()
    replayed = next(
        page
        for page in (path.read_text() for path in sorted(DOCS.glob("*.md")))
        if "% moved, mended" in page
    )
    _, _, deepseek, _, _, _, points, _, ceiling, moved, few, _, ms, *_ = cells_of(
        "| switches | 288 global 32 | 0.", replayed
    )
    loop, numpy, queues, *_, fastest = map(
        float, cells_of("| 288 global 32 |", (DOCS / "performance.md").read_text())[1:]
    )
    first = "| [DeepSeek's EPLB]"
    last = "| `eplb_np`, `Rebalancer`"
    assert cells_of(first, readme)[1:4] == [
        f"{float(deepseek):.3f}", f"{moved} %", f"{loop:.0f}"
    ]  # fmt: skip
    assert cells_of("| [vLLM's]", readme)[3] == f"{numpy:.1f}"
    assert cells_of("| [TensorRT-LLM's]", readme)[3] == f"{queues:.1f}"
    assert cells_of('| `eplb_np`, `policy="deepseek"`', readme)[3] == f"{fastest:.2f}"
    better = f"{float(deepseek) + float(points) / 100:.3f}"
    assert cells_of(last, readme)[1:4] == [better, f"{float(few):.1f} %", ms]
    assert f"would reach {float(deepseek) + float(ceiling) / 100:.3f}." in readme


PAGES = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.md",
    "docs/engines/*.md",
    "docs/reference/*.md",
    "docs/studies/*.md",
]


@pytest.mark.parametrize("pages", PAGES)
def test_links_to_files_lead_somewhere(pages: str) -> None:
    sources = sorted(ROOT.glob(pages))
    assert sources
    for source in sources:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", source.read_text()):
            assert (source.parent / target).exists(), f"{source.name} links to {target}"


@needs_jit
def test_the_page_of_the_command_shows_what_commands_print() -> None:
    """If not, ``python docs/studies/command_page.py docs/command.md`` writes it anew."""
    page = (DOCS / "command.md").read_text()
    printed = command_page.run_page(page)
    assert command_page.without_times(printed) == command_page.without_times(page)


def test_the_page_of_the_command_has_every_command_and_exit_code() -> None:
    page = (DOCS / "command.md").read_text()
    sections = set(re.findall(r"^## (.+)$", page, re.MULTILINE))
    assert sections >= set(command.commands)
    for code in (0, NOT_WRITTEN, BAD_INPUT, STOPPED):
        assert f"| {code} |" in page


def small_load() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.integers(0, 9, (4, 16)).astype(float)  # many ties and zeros


@pytest.mark.parametrize("sizes", [(20, 4, 2, 4), (24, 8, 1, 1), (16, 4, 4, 8)])
def test_whole_ablation_is_the_hybrid_policy(sizes: tuple[int, int, int, int]) -> None:
    load = small_load()
    topology = eplb_np.Topology(load.shape[1], *sizes)
    planned = plan_variant(load, topology, Variant(tail=True, refine=True))
    hybrid = eplb_np.make_plan(load, topology, policy="hybrid")
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
    bridges.print_table(few_profiles, bridges=(0, 4))
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
@pytest.mark.parametrize("engine", engines.ENGINES, ids=lambda engine: engine.name)
def test_what_an_engine_gains_is_printed(
    engine: engines.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    engines.print_table(engine, few_profiles, 1, 7, ["stationary"])
    header, _, *rows = (line.split("|") for line in capsys.readouterr().out.splitlines())
    assert len(rows) == len(engine.deployments) * len(engine.dispatches)
    for row in rows:
        cells = dict(zip(map(str.strip, header), map(str.strip, row), strict=True))
        assert 0 < float(cells["ours"]) < 1
        if "% fetched, limited" in cells:  # the map in use is handed over
            fetched = [float(cells[f"% fetched, {way}"]) for way in ("limited", "ours", "own")]
            assert fetched == sorted(fetched)


few_loads = few_profiles / few_profiles.sum(axis=2, keepdims=True)
SPLIT_ROWS = {  # header and line below it are not counted
    "late": 2 * 2 * 2,
    "spares": 2 * 2 * 3,
    "moves": 4 * 2 * 6,
    "placement": 6 * 2 + 2,
    "workloads": 5,
}


@needs_jit
@pytest.mark.slow
@pytest.mark.parametrize("table", splitting.TABLES)
def test_tables_of_the_split_are_printed(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    splitting.TABLES[table](few_loads)
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert len(rows) == SPLIT_ROWS[table]
    assert {row.count("|") for row in rows} == {header.count("|")}


@needs_jit
def test_the_tables_of_the_split_say_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late shares are between the even split and the best one; more spare slots never hurt."""
    monkeypatch.setattr(splitting, "BATCH_TOKENS", (4_000, 64_000))
    curves = splitting.batch_curves(few_loads[0], splitting.SHAPES["288 global 32"], "prefill")
    for plan in ("even", "best"):
        for even, late, best in zip(
            *(curves[f"{plan} {way}"] for way in splitting.WAYS), strict=True
        ):
            assert even < late < best <= 1
    monkeypatch.setattr(splitting, "SPARES", (0, 32, 128))
    spare = splitting.spare_curves(few_loads[0], 32, "prefill")
    assert spare["best best"] == sorted(spare["best best"])
    assert spare["best best"][-1] > 0.999
    bare, _, refined, made, bound = splitting.placement_of(
        few_loads[0], splitting.SHAPES["288/8/4/32"], "prefill", "best"
    )
    assert bare < refined < made <= bound + 1e-9


@needs_jit
def test_what_follows_from_a_split_is_timed() -> None:
    cells = split_times.costs(few_loads[0], splitting.SHAPES["288 global 32"])
    assert len(cells) == 5
    assert all(float(cell) > 0 for cell in cells)


@needs_jit
def test_a_moe_layer_in_jax_gives_the_same_output() -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    import moe_layer_jax

    found = moe_layer_jax.run()
    assert found["largest difference"] <= 1e-5 * found["largest output"]
    assert found["mean"] <= found["best split"] < found["even split"] < found["without replicas"]
    page = (DOCS / "dispatch.md").read_text()
    for name in ("without replicas", "even split", "best split"):
        assert f"| {name} | {found[name]:.4g} |" in page


def test_the_table_of_metrics_has_what_is_exported() -> None:
    client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    page = (DOCS / "serving.md").read_text()
    rows = re.findall(r"^\| `(eplb_\w+)` \| (\w+) \|", page, re.MULTILINE)
    registry = client.CollectorRegistry()
    rebalancer = eplb_np.Rebalancer(eplb_np.Topology(4, 6, 2), 1)
    eplb_np.engines.metrics.RebalancerMetrics(rebalancer, registry)
    ends = {"counter": "_total"}
    assert rows == [
        (family.name + ends.get(family.type, ""), family.type) for family in registry.collect()
    ]
    used = set(re.findall(r"eplb_\w+(?=[\[{)\s])", page.split("```yaml")[1].split("```")[0]))
    known = {*dict(rows), "eplb_plan_duration_seconds_bucket"}
    assert used <= known


@needs_jit
def test_a_serving_loop_prints_what_the_page_shows() -> None:
    """What it carries out, and that the output stays the same, it checks itself."""
    pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
    import serving_loop

    page = (DOCS / "serving.md").read_text()
    table, metrics = serving_loop.run()
    assert "\n".join(table) in page
    shown = dict(re.findall(r"^(eplb_\S+) (\S+)$", page, re.MULTILINE))
    for line in metrics:
        name, value = line.rsplit(" ", 1)
        assert "_seconds" in name or float(shown[name]) == pytest.approx(float(value))
    cells = [line.split() for line in table[1:]]
    seen, expected = ([float(row[column]) for row in cells] for column in (1, 4))
    causes = [row[5] for row in cells]
    assert causes[serving_loop.LOST_AFTER] == causes[serving_loop.BACK_AFTER] == "gpus"
    assert int(cells[serving_loop.LOST_AFTER][3]) > 0
    for switch in (8, 16):
        assert causes[switch] == "workload"
        assert seen[switch] < 0.9 < min(seen[switch + 1 : switch + 4])
    assert min(seen[serving_loop.LOST_AFTER + 1 : switch]) > 0.9
    assert min(expected) > 0.9


@needs_jit
def test_a_sharded_moe_layer_in_jax_is_planned_split_and_moved() -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    # In a process of its own: what makes 8 devices of the CPU holds for the whole process.
    script = DOCS / "studies" / "moe_layer_sharded_jax.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (line.split(": ") for line in done.stdout.splitlines())
    found = {name: float(value) for name, value in lines}
    assert found["largest difference"] < 3e-7
    page = (DOCS / "jax_tensorflow.md").read_text()
    assert f"\n{found['moves']:.0f} weights moved." in page
    for name in ("planned", "changed", "moved"):
        ways = ("without replicas", "in turn", "best split")
        row = " | ".join(f"{found[f'{name}, {way}']:.0f}" for way in ways)
        assert f"| {name} | {row} |" in page


@needs_jit
def test_pictures_are_drawn() -> None:
    pytest.importorskip("matplotlib")
    import pictures
    import split_pictures

    figures = pictures.draw_all(few_profiles, num_windows=12)
    figures |= split_pictures.draw_all(few_profiles, num_windows=12)
    assert {f"{name}.svg" for name in figures} == {path.name for path in PICTURES.glob("*.svg")}
