"""A serving loop: nothing is ever lost, a restart moves nothing, threads do no harm."""

import gc
import json
import threading
import weakref

import numpy as np
import pytest
from plans import make_moves
from support import fewer, refused

import eplb_np
from eplb_np import MoveLimits, Plan, Rebalancer, Topology, _forks
from eplb_np import rebalancer as rebalancer_module
from eplb_np.moves.moves import moves_between

TOPOLOGY = Topology(18, 24, 6, 3, 3)


def windows(seed: int, num_layers: int = 2, num_experts: int = 18):
    """Poisson counts around shares that change at once now and then."""
    generator = np.random.default_rng(seed)
    while True:
        mean = generator.lognormal(3, 1, (num_layers, num_experts))
        for _ in range(int(generator.integers(2, 30))):
            yield generator.poisson(mean * generator.uniform(0.5, 2))


def test_nothing_is_lost_in_a_thousand_random_events() -> None:
    generator = np.random.default_rng(1)
    rebalancer = Rebalancer(TOPOLOGY, 2)
    loads = windows(1)
    in_use = rebalancer.propose().plan
    active, lost = set(range(6)), set()
    seen = dict.fromkeys(("observe", "propose", "lost", "refused", "back"), 0)
    for _ in range(fewer(1000, 150)):
        event = generator.choice(["observe", "propose", "lost", "back"], p=[0.4, 0.4, 0.1, 0.1])
        if event == "observe":
            rebalancer.observe(next(loads))
        elif event == "propose":
            proposal = rebalancer.propose()
            plan = proposal.plan
            plan.check()
            assert (plan.logcnt > 0).all()
            used = np.isin(TOPOLOGY.gpu_of_slot, sorted(active))
            assert ((plan.phy2log >= 0) == used).all()
            assert proposal.stays == (len(proposal.moves) == 0)
            held = make_moves(in_use, plan)
            assert np.array_equal(np.where(used, held, -1), plan.phy2log)
            without = np.isin(TOPOLOGY.gpu_of_slot, sorted(lost))  # maybe back by now, but empty
            held = np.where(without, -1, in_use.phy2log)
            assert list(proposal.moves) == list(moves_between(held, plan.phy2log, plan.topology))
            assert rebalancer.current is plan
            in_use, lost = plan, set()
        else:
            gpu = int(generator.integers(6))
            change = active - {gpu} if event == "lost" else active | {gpu}
            if len(change) * 4 < 18:
                with refused("slots are missing"):
                    rebalancer.use_gpus(sorted(change))
                event = "refused"
            else:
                rebalancer.use_gpus(sorted(change))
                lost |= active - change
                active = change
        seen[event] += 1
    assert min(seen.values()) > 0, seen


def test_a_restart_moves_nothing(tmp_path) -> None:
    loads = windows(2)
    rebalancer = Rebalancer(
        TOPOLOGY, 2, limits=MoveLimits(total=9), dtype=np.int32, moe_layer_ids=[3, 4]
    )
    for i in range(fewer(60, 15)):
        rebalancer.save(tmp_path / "state.npz")
        restored = Rebalancer.load(tmp_path / "state.npz")
        assert restored.current == rebalancer.current
        assert restored.topology == rebalancer.topology
        load = next(loads)
        for one in (rebalancer, restored):
            one.observe(load)
            one.use_gpus([0, 1, 2, 3, 4] if i % 7 == 3 else None)
        made, again = rebalancer.propose(), restored.propose()
        assert made.plan == again.plan
        assert made.reason == again.reason
        assert (made.moves is None) == (again.moves is None)
    assert made.plan.dtype == np.int32
    assert made.plan.moe_layer_ids == (3, 4)


def test_staying_is_proposed_with_a_reason() -> None:
    rebalancer = Rebalancer(TOPOLOGY, 1)
    load = np.full((1, 18), 100)
    rebalancer.observe(load)
    first = rebalancer.propose()
    assert (first.moves, first.stays) == (None, False)
    assert "from scratch" in first.reason
    rebalancer.observe(load)
    second = rebalancer.propose()
    assert second.stays
    assert second.plan is first.plan
    assert "no move pays off" in second.reason


def test_reasons_say_what_happened() -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    generator = np.random.default_rng(3)
    old, new = generator.lognormal(4, 1.5, (2, 2, 18))
    for _ in range(6):
        rebalancer.observe(generator.poisson(old))
    assert rebalancer.propose().cause == "first"
    assert rebalancer.propose().cause == "load"
    rebalancer.observe(generator.poisson(new))
    proposal = rebalancer.propose()
    assert "the workload has changed" in proposal.reason
    assert "fetches take expected balancedness from" in proposal.reason
    assert proposal.cause == "workload"
    rebalancer.use_gpus([0, 1, 2, 3, 4])
    proposal = rebalancer.propose()
    assert "the active GPUs have changed" in proposal.reason
    assert proposal.cause == "gpus"


def test_a_proposal_says_what_to_expect() -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    loads = np.random.default_rng(4).poisson(1000, (8, 2, 18))
    proposal = rebalancer.propose()
    assert (proposal.load == 1).all()
    assert (proposal.windows_used, proposal.workload_changes) == (0, 0)
    rebalancer.observe(loads[0])
    proposal = rebalancer.propose()
    assert np.array_equal(proposal.load, loads[0])
    assert proposal.windows_used == 1
    for load in loads[1:]:
        rebalancer.observe(load)
    proposal = rebalancer.propose()
    assert proposal.load == pytest.approx(loads.mean(axis=0), rel=0.1)
    assert proposal.expected_balancedness == proposal.plan.balancedness(proposal.load)
    assert f"{proposal.expected_balancedness:.4f}" in proposal.reason
    assert 4 < proposal.windows_used <= 8


@pytest.mark.parametrize("restart", ["none", "saved", "saved by an older version"])
def test_changes_of_workload_count_until_the_next_proposal(restart, tmp_path) -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    generator = np.random.default_rng(3)
    old, new = generator.lognormal(4, 1.5, (2, 2, 18))
    changes = []
    for mean in (old,) * 6 + (new,):
        rebalancer.observe(generator.poisson(mean))
        changes.append(rebalancer._forecast.switched)
    assert sum(changes) > changes[-1] > 0
    if restart != "none":
        rebalancer.save(tmp_path / "state.npz")
    if restart == "saved by an older version":  # which knew of the last window only
        content = dict(np.load(tmp_path / "state.npz"))
        header = json.loads(str(content["header"]))
        del header["workload_changes"]
        np.savez(tmp_path / "state.npz", **{**content, "header": np.array(json.dumps(header))})
        changes = changes[-1:]
    if restart != "none":
        rebalancer = Rebalancer.load(tmp_path / "state.npz")
    rebalancer.observe(generator.poisson(new))
    changes.append(rebalancer._forecast.switched)
    assert rebalancer.propose().workload_changes == sum(changes)
    proposal = rebalancer.propose()
    assert (proposal.workload_changes, proposal.cause) == (0, "load")


def test_without_a_window_experts_count_alike() -> None:
    plan = Rebalancer(TOPOLOGY, 2).propose().plan
    assert plan.balancedness(np.ones((2, 18))) == pytest.approx(
        eplb_np.make_plan(np.ones((2, 18)), TOPOLOGY, policy="refined").balancedness(
            np.ones((2, 18))
        )
    )


def test_a_plan_in_use_is_taken_over_and_put_right() -> None:
    in_use = eplb_np.make_plan(np.ones((2, 18)), TOPOLOGY, dtype=np.int32, moe_layer_ids=[1, 2])
    rebalancer = Rebalancer(TOPOLOGY, current=in_use)
    assert rebalancer.current is in_use
    rebalancer.observe(next(windows(4)))
    proposed = rebalancer.propose().plan
    assert (proposed.dtype, proposed.moe_layer_ids) == (np.int32, (1, 2))
    rebalancer.use(in_use)
    assert rebalancer.propose().plan == proposed


def test_it_does_what_make_plan_does() -> None:
    loads = windows(5)
    history = np.stack([next(loads) for _ in range(9)])
    current = eplb_np.make_plan(history[0], TOPOLOGY, policy="refined")
    rebalancer = Rebalancer(TOPOLOGY, current=current, limits=MoveLimits(per_gpu=3))
    for load in history:
        rebalancer.observe(load)
    proposed = rebalancer.propose().plan
    made = eplb_np.make_plan(
        history, current=current, policy="refined", limits=MoveLimits(per_gpu=3)
    )
    assert np.array_equal(proposed.phy2log, made.phy2log)


def test_many_threads_observe_and_propose() -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    rebalancer.propose()
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            loads = windows(seed)
            for i in range(fewer(150, 10)):
                rebalancer.observe(next(loads))
                rebalancer.use_gpus([0, 1, 2, 3, 4] if i % 3 else None)
                plan = rebalancer.propose().plan
                plan.check()
        except BaseException as error:  # noqa: BLE001 - told by the test's thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert rebalancer.num_windows == 6 * fewer(150, 10)


def test_the_plan_that_is_in_use_is_not_overwritten_by_a_proposal_under_way(monkeypatch) -> None:
    told, other = (eplb_np.in_order_plan(2, TOPOLOGY) for _ in range(2))
    rebalancer = Rebalancer(TOPOLOGY, current=other)
    rebalancer.observe(next(windows(9)))
    planning, go_on = threading.Event(), threading.Event()
    plan_next = rebalancer_module.plan_next

    def plan_slowly(*args):
        planning.set()
        assert go_on.wait(60)
        return plan_next(*args)

    monkeypatch.setattr(rebalancer_module, "plan_next", plan_slowly)
    proposed = []
    proposing = threading.Thread(target=lambda: proposed.append(rebalancer.propose()))
    proposing.start()
    assert planning.wait(60)
    using = threading.Thread(target=rebalancer.use, args=(told,))
    using.start()
    using.join(0.05)
    assert using.is_alive()  # it waits for the proposal
    assert rebalancer.current is other
    go_on.set()
    for thread in (proposing, using):
        thread.join(60)
    assert rebalancer.current is told
    assert not proposed[0].stays


def test_rebalancers_are_not_kept_for_forks() -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    assert rebalancer in _forks._locks_of
    gone = weakref.ref(rebalancer)
    del rebalancer
    gc.collect()
    assert gone() is None


def test_memory_does_not_grow_with_the_windows(tmp_path) -> None:
    loads = windows(6)
    rebalancer = Rebalancer(TOPOLOGY, 2)
    sizes = []
    for _ in range(3):
        for _ in range(40):
            rebalancer.observe(next(loads))
        sizes.append(sum(array.nbytes for array in rebalancer._forecast.state_dict().values()))
    assert sizes[0] == sizes[1] == sizes[2]


def test_a_bad_window_changes_nothing(tmp_path) -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    rebalancer.observe(next(windows(7)))
    with refused("shape (1, 18)", "(2, 18)"):
        rebalancer.observe(np.ones((1, 18)))
    with refused("load[1, 3] = nan"):
        bad = np.ones((2, 18))
        bad[1, 3] = np.nan
        rebalancer.observe(bad)
    assert rebalancer.num_windows == 1


def test_arguments_that_do_not_fit_are_refused() -> None:
    plan = eplb_np.in_order_plan(2, TOPOLOGY)
    with refused("topology must be a Topology, not int"):
        Rebalancer(18, 2)
    with refused("neither num_layers nor current is given"):
        Rebalancer(TOPOLOGY)
    with refused("current has [layers, experts] = (2, 18)", "(3, 18) is wanted"):
        Rebalancer(TOPOLOGY, 3, current=plan)
    with refused("the same slots on every GPU", "plan from scratch"):
        Rebalancer(Topology(18, 24, 12), current=plan)
    rebalancer = Rebalancer(TOPOLOGY, 2)
    with refused("current must be a Plan, not ndarray"):
        rebalancer.use(plan.phy2log)


def test_files_that_are_no_state_are_refused(tmp_path) -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    rebalancer.observe(next(windows(8)))
    rebalancer.propose()
    path = tmp_path / "state.npz"
    rebalancer.save(path)
    with refused(".npz"):
        rebalancer.save(tmp_path / "state.json")
    content = dict(np.load(path))
    for name, change in {
        "phy2log": content["phy2log"][:, :4],
        "forecast_level": content["forecast_level"][:1],
        "header": np.array("{}"),
        "workload_changes": np.array(-1),
    }.items():
        np.savez(tmp_path / "bad.npz", **{**content, name: change})
        with refused("bad.npz is not the state of a Rebalancer"):
            Rebalancer.load(tmp_path / "bad.npz")
    path.write_bytes(path.read_bytes()[:200])
    with refused("state.npz"):
        Rebalancer.load(path)
    plan: Plan = rebalancer.propose().plan
    plan.save(tmp_path / "plan.npz")
    with refused("plan.npz is not the state", "'eplb_np.plan'"):
        Rebalancer.load(tmp_path / "plan.npz")


def test_it_says_what_it_is() -> None:
    rebalancer = Rebalancer(TOPOLOGY, 2)
    assert repr(rebalancer) == "Rebalancer(0 windows observed, in use: None)"


@pytest.mark.parametrize("restart", [False, True])
def test_a_gpu_that_was_lost_and_is_back_before_a_proposal_has_lost_its_weights(restart, tmp_path):
    topology = Topology(12, 18, 6)
    load = np.random.default_rng(5).lognormal(3, 1, (2, 12))
    rebalancer = Rebalancer(topology, 2)
    rebalancer.observe(load)
    plan = rebalancer.propose().plan
    rebalancer.use_gpus([0, 1, 2, 3, 5])
    rebalancer.use_gpus(None)
    if restart:
        rebalancer.save(tmp_path / "state.npz")
        rebalancer = Rebalancer.load(tmp_path / "state.npz")
    proposal = rebalancer.propose()
    assert proposal.cause == "gpus"
    slots = set(range(*topology.first_slots[4:6]))
    fetched = {(move.layer, move.slot) for move in proposal.moves if move.slot in slots}
    assert fetched == {(layer, slot) for layer in range(2) for slot in slots}
    assert all(move.source_gpu != 4 for move in proposal.moves if move.step == 0)
    assert proposal.plan.moves_from(plan).num_fetched < len(fetched)  # else as if nothing were lost
    assert rebalancer.propose().stays
