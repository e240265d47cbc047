"""Metrics say what a `Rebalancer` did: read back from the text that a server exports."""

import math
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from support import fewer, output_of, refused

from eplb_np import MoveLimits, Plan, Rebalancer, Topology, in_order_plan
from eplb_np.engines.metrics import RebalancerMetrics
from eplb_np.workloads import related_profiles, scenario_trace, skewed_load

client = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")

TOPOLOGY = Topology(32, 36, 12, 4, 8)  # a node without a GPU cannot hold its groups
PROFILES = related_profiles(skewed_load(2, 32), 2, variation=0.4)
TRACE = scenario_trace("switches", PROFILES, num_windows=fewer(24, 12)).load


def read(registry, model=""):
    """What a registry exports of a model, by name, or by name and the value of a further label."""
    from prometheus_client.parser import text_string_to_metric_families

    found = {}
    for family in text_string_to_metric_families(client.generate_latest(registry).decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            if labels.pop("model") == model:
                key = (sample.name, *labels.values()) if labels else sample.name
                assert key not in found
                found[key] = sample.value
    return found


def made(registry=None, model="", **options):
    return RebalancerMetrics(Rebalancer(TOPOLOGY, 2, **options), registry, model=model)


def where_from(move):
    if move.source_gpu < 0:
        return "storage"
    if move.source_gpu == move.gpu:
        return "same_gpu"
    return "same_node" if move.source_gpu // 3 == move.gpu // 3 else "other_node"


def test_metrics_say_what_was_done() -> None:
    """Over changes of workload, with limits, and with a GPU that is lost and comes back."""
    limits = MoveLimits(per_gpu=1)
    metrics, twin = made(limits=limits), Rebalancer(TOPOLOGY, 2, limits=limits)
    causes, sources, changes, ideal, longest = Counter(), Counter(), 0, 0.0, 0.0
    before = None
    start = time.time()
    for window, load in enumerate(TRACE):
        metrics.observe(load)
        twin.observe(load)
        if before is not None:
            plan = before.plan
            ideal += load.sum() / plan.topology.active_speed
            longest += plan.gpu_time(load).max(axis=1).sum()
            seen, told = plan.balancedness(load), read(metrics.registry)
            assert told["eplb_balancedness_seen"] == pytest.approx(seen)
            expected = before.expected_balancedness
            assert told["eplb_balancedness_shortfall"] == pytest.approx(expected - seen)
        for one in (metrics.rebalancer, twin):
            one.use_gpus([gpu for gpu in range(12) if gpu != 5] if window in (5, 6) else None)
        before = metrics.propose()
        assert before.plan == twin.propose().plan  # metrics change nothing
        causes["stays" if before.stays else before.cause] += 1
        sources.update(where_from(move) for move in before.moves or ())
        changes += before.workload_changes
        told = read(metrics.registry)
        assert told["eplb_active_gpus"] == (11 if window in (5, 6) else 12)
        plan = before.plan
        expected = plan.balancedness(before.load)
        bound = before.load.sum() / plan.topology.active_speed / plan.lower_bound(before.load).sum()
        assert told["eplb_balancedness_expected"] == before.expected_balancedness
        assert before.expected_balancedness == pytest.approx(expected)
        assert told["eplb_balancedness_bound"] == pytest.approx(bound)
        assert told["eplb_forecast_windows"] == before.windows_used
    assert set(causes) >= {"first", "gpus", "workload", "groups"}
    assert len(sources) >= 3
    for cause in ("first", "gpus", "workload", "groups", "load", "stays"):
        assert told["eplb_proposals_total", cause] == causes[cause]
    for source in ("same_gpu", "same_node", "other_node", "storage"):
        assert told["eplb_moves_total", source] == sources[source]
    assert told["eplb_workload_changes_total"] == changes > 0
    assert told["eplb_windows_total"] == told["eplb_plan_duration_seconds_count"] == len(TRACE)
    assert told["eplb_plan_duration_seconds_bucket", "+Inf"] == len(TRACE)
    assert 0 < told["eplb_plan_duration_seconds_sum"] < time.time() - start
    assert told["eplb_mean_gpu_load_total"] == pytest.approx(ideal)
    assert told["eplb_busiest_gpu_load_total"] == pytest.approx(longest)
    assert told["eplb_gpus"] == 12
    assert start < told["eplb_last_change_timestamp_seconds"] <= time.time()


@pytest.mark.parametrize("options", [{"gpu_speeds": [1, 1, 2, 1.5]}, {"active_gpus": [0, 1, 3]}])
@pytest.mark.parametrize("split", ["even", "best"])
def test_balance_is_that_of_the_deployment_and_its_split(options, split) -> None:
    rebalancer = Rebalancer(Topology(12, 20, 4, **options), 2, split=split)
    metrics = RebalancerMetrics(rebalancer)
    first, second = np.random.default_rng(0).lognormal(3, 1, (2, 2, 12))
    metrics.observe(first)
    proposal = metrics.propose()
    metrics.observe(second.tolist())
    told = read(metrics.registry)
    seen = proposal.plan.balancedness(second, split=split)
    assert told["eplb_balancedness_seen"] == pytest.approx(seen)
    expected = proposal.plan.balancedness(first, split=split)
    assert told["eplb_balancedness_expected"] == pytest.approx(expected)
    assert told["eplb_balancedness_bound"] >= expected - 1e-9


def test_what_is_not_known_yet_is_no_number() -> None:
    metrics = made()
    told = read(metrics.registry)
    unknown = {name for name, value in told.items() if math.isnan(value)}
    assert unknown == {
        "eplb_forecast_windows", "eplb_balancedness_bound", "eplb_balancedness_expected",
        "eplb_balancedness_seen", "eplb_balancedness_shortfall",
        "eplb_last_change_timestamp_seconds",
    }  # fmt: skip
    assert (told["eplb_windows_total"], told["eplb_active_gpus"]) == (0, 12)
    assert told["eplb_proposals_total", "workload"] == 0  # so that rates start there
    metrics.observe(TRACE[0])  # no plan is in use that could be measured
    told = read(metrics.registry)
    assert told["eplb_windows_total"] == 1
    assert math.isnan(told["eplb_balancedness_seen"])
    metrics.propose()
    metrics.observe(np.zeros((2, 32)))  # nothing was served
    told = read(metrics.registry)
    assert told["eplb_windows_total"] == 2
    assert math.isnan(told["eplb_balancedness_seen"])
    plan = in_order_plan(2, TOPOLOGY)
    metrics.rebalancer.use(plan)  # of which nobody knows what to expect
    metrics.observe(TRACE[1])
    told = read(metrics.registry)
    assert told["eplb_balancedness_seen"] == pytest.approx(plan.balancedness(TRACE[1]))
    assert math.isnan(told["eplb_balancedness_shortfall"])


def test_a_plan_that_stays_is_no_change() -> None:
    metrics = made()
    metrics.observe(TRACE[0])
    metrics.propose()
    changed = read(metrics.registry)["eplb_last_change_timestamp_seconds"]
    assert metrics.propose().stays
    told = read(metrics.registry)
    assert told["eplb_last_change_timestamp_seconds"] == changed
    assert told["eplb_proposals_total", "stays"] == 1


def test_a_plan_without_a_gpu_is_a_change_even_if_nothing_moves() -> None:
    metrics = RebalancerMetrics(Rebalancer(Topology(4, 8, 4), 1, limits=MoveLimits(total=0)))
    first = metrics.propose()
    changed = read(metrics.registry)["eplb_last_change_timestamp_seconds"]
    metrics.rebalancer.use_gpus([1, 2, 3])
    proposal = metrics.propose()
    assert proposal.stays
    assert proposal.plan != first.plan
    told = read(metrics.registry)
    assert (told["eplb_proposals_total", "gpus"], told["eplb_proposals_total", "stays"]) == (1, 0)
    assert told["eplb_last_change_timestamp_seconds"] > changed


def test_moves_count_where_they_read(monkeypatch) -> None:
    metrics = made()
    proposal = metrics.propose()
    plan = proposal.plan
    old = Plan(np.roll(plan.phy2log, 1, 1), np.roll(plan.phyrank, 1, 1), TOPOLOGY, "rolled")
    moves = plan.moves_from(old)
    expected = Counter(where_from(move) for move in moves)
    assert expected["same_gpu"] == len(moves) - moves.num_fetched > 0
    monkeypatch.setattr(Rebalancer, "propose", lambda self: replace(proposal, moves=moves))
    metrics.propose()
    told = read(metrics.registry)
    for source in ("same_gpu", "same_node", "other_node", "storage"):
        assert told["eplb_moves_total", source] == expected[source]


def test_a_refused_window_is_not_counted() -> None:
    metrics = made()
    with refused("shape (1, 32)"):
        metrics.observe(np.ones((1, 32)))
    assert read(metrics.registry)["eplb_windows_total"] == 0


def test_many_threads_count_everything() -> None:
    metrics = made()
    metrics.propose()
    rounds = fewer(50, 5)

    def serve(seed: int) -> None:
        loads = np.random.default_rng(seed)
        for _ in range(rounds):
            metrics.observe(loads.lognormal(3, 1, (2, 32)))
            metrics.propose()
            client.generate_latest(metrics.registry)

    threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(4)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    told = read(metrics.registry)
    assert told["eplb_windows_total"] == metrics.rebalancer.num_windows == 4 * rounds
    proposed = sum(value for key, value in told.items() if key[0] == "eplb_proposals_total")
    assert proposed == told["eplb_plan_duration_seconds_count"] == 4 * rounds + 1


def test_an_older_proposal_of_a_slow_thread_is_counted_but_not_shown(monkeypatch) -> None:
    metrics = made()
    metrics.observe(TRACE[0])
    first = metrics.rebalancer.propose()
    metrics.rebalancer.use(in_order_plan(2, TOPOLOGY))
    metrics.observe(TRACE[1])
    latest = metrics.propose()
    assert latest.expected_balancedness != first.expected_balancedness
    monkeypatch.setattr(Rebalancer, "propose", lambda self: first)
    metrics.propose()
    told = read(metrics.registry)
    assert told["eplb_proposals_total", "first"] == 1
    assert told["eplb_balancedness_expected"] == latest.expected_balancedness


def test_two_rebalancers_share_a_registry() -> None:
    registry = client.CollectorRegistry()
    one, other = made(registry, "one"), made(registry, "other")
    assert one.registry is other.registry is registry
    one.observe(TRACE[0])
    assert read(registry, "one")["eplb_windows_total"] == 1
    assert read(registry, "other")["eplb_windows_total"] == 0
    text = client.generate_latest(registry).decode()
    assert text.count("# TYPE eplb_windows_total ") == 1
    with refused("model='one' already has metrics in this registry"):
        made(registry, "one")
    made(model="one")  # in a registry of its own
    one.close()
    one.close()
    assert not read(registry, "one")
    assert read(registry, "other")
    one.observe(TRACE[1])  # serving goes on
    one.propose()
    made(registry, "one").observe(TRACE[0])
    assert read(registry, "one")["eplb_windows_total"] == 1


def test_closing_the_last_leaves_nothing() -> None:
    registry = client.CollectorRegistry()
    metrics = [made(registry, name) for name in "ab"]
    for each in metrics:
        each.close()
    assert client.generate_latest(registry) == b""
    client.Gauge("eplb_gpus", "of somebody else", registry=registry)


def test_the_default_registry_is_used_only_if_given() -> None:
    before = client.generate_latest(client.REGISTRY).decode()
    made().observe(TRACE[0])
    assert "eplb_" not in client.generate_latest(client.REGISTRY).decode()
    metrics = made(client.REGISTRY)
    assert "eplb_windows_total" in client.generate_latest(client.REGISTRY).decode()
    metrics.close()
    after = client.generate_latest(client.REGISTRY).decode()
    assert after.count("# HELP") == before.count("# HELP")


def test_metrics_of_somebody_else_are_left_alone() -> None:
    registry = client.CollectorRegistry()
    client.Gauge("eplb_gpus", "of somebody else", registry=registry).set(7)
    with refused("eplb_gpus"):
        made(registry)
    text = client.generate_latest(registry).decode()
    assert text.splitlines()[1:] == ["# TYPE eplb_gpus gauge", "eplb_gpus 7.0"]


def test_odd_arguments_are_refused() -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    with refused("rebalancer must be a Rebalancer, not Topology"):
        RebalancerMetrics(TOPOLOGY)
    with refused("registry must be a CollectorRegistry, not str"):
        RebalancerMetrics(rebalancer, "tiny")
    with refused("model must be a str, not int"):
        RebalancerMetrics(rebalancer, model=3)


def test_without_the_library_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ModuleNotFoundError) as error:
        made()
    assert str(error.value).endswith("prometheus_client: pip install 'eplb-np[metrics]'")
    assert "\n" not in str(error.value)


def test_importing_does_not_load_the_library() -> None:
    code = "import eplb_np.engines.metrics, sys; print('prometheus_client' in sys.modules)"
    assert output_of(code) == "False"


SERVE = """
import numpy as np
import prometheus_client as client
from eplb_np import Rebalancer, Topology
from eplb_np.engines.metrics import RebalancerMetrics

metrics = RebalancerMetrics(Rebalancer(Topology(12, 18, 6), 1), model="m")

def serve(seed):
    loads = np.random.default_rng(seed)
    metrics.observe(loads.lognormal(3, 1, (1, 12)))
    metrics.propose()

serve(0)
"""


def test_several_processes_of_a_server_export_together(tmp_path) -> None:
    """As engines do whose requests are served by several processes, one of which plans."""
    code = (
        SERVE
        + """
from prometheus_client.multiprocess import MultiProcessCollector
registry = client.CollectorRegistry()
MultiProcessCollector(registry)
for line in client.generate_latest(registry).decode().splitlines():
    if line.startswith(("eplb_active_gpus", "eplb_windows_total")):
        print(line)
"""
    )
    told = output_of(code, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).splitlines()
    assert sorted(told) == ['eplb_active_gpus{model="m"} 6.0', 'eplb_windows_total{model="m"} 1.0']


FORK = """
import os, signal, threading, time, warnings
from eplb_np.engines.metrics import _SHARED
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of fork with threads
inside = threading.Event()

def count_slowly():
    with _SHARED.lock:
        inside.set()
        time.sleep(0.3)

thread = threading.Thread(target=count_slowly)
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    serve(1)
    os._exit(0)
print(os.waitpid(child, 0)[1])
thread.join()
"""


@pytest.mark.same_without_jit
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_can_go_on_with_metrics_that_another_thread_was_using() -> None:
    assert output_of(SERVE + FORK) == "0"
