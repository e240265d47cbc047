"""Processes that are killed or forked at any time leave whole files, and free locks."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from arena import attack_python
from support import PACKAGE, needs_jit

import eplb_np
from eplb_np import Plan, Rebalancer

pytestmark = needs_jit

SAVING = """
import os, sys, time
import eplb_np
topology = eplb_np.Topology(256, 288, 32, 4, 8)
plans = [eplb_np.in_order_plan(layers, topology) for layers in (57, 58)]
rebalancers = [eplb_np.Rebalancer(topology, current=plan) for plan in plans]
name, where = sys.argv[1:]
kept = plans if name.startswith("plan") else rebalancers
kept[0].save(name)

def wait(*args, **kwargs):
    print("saving", flush=True)
    time.sleep(600)

if where == "anywhere":
    print("saving", flush=True)
else:
    setattr(os, where, wait)
while True:
    for one in reversed(kept):
        one.save(name)
"""

PLACES = ("fsync", "replace")
"""Calls before which all is in the temporary file, and it is not yet renamed."""

NAMES = ("plan.json", "plan.npz", "state.npz")
KILLS = (signal.SIGTERM, signal.SIGKILL)


def kill_while_saving(
    path: Path, kill: signal.Signals, *, delay: float = 0, where: str = "anywhere"
) -> None:
    """Kill a process that saves in a loop, after a delay, or at a certain place of its second save.

    The first save has 57 layers, the second one 58.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", SAVING, path.name, where], cwd=path.parent, text=True,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "saving\n"
    time.sleep(delay)
    process.send_signal(kill)
    assert process.wait(60) == -kill


def check_whole(path: Path) -> int:
    """Return the number of layers of a file that must be one of the two that were saved."""
    if path.name.startswith("plan"):
        layers = Plan.load(path).num_layers
    else:
        layers = Rebalancer.load(path).current.num_layers
    assert layers in (57, 58)
    return layers


def strays_of(path: Path) -> list[Path]:
    return [stray for stray in path.parent.iterdir() if stray != path]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_save_leaves_a_whole_file(kill, name, tmp_path) -> None:
    path = tmp_path / name
    kill_while_saving(path, kill, where=PLACES[KILLS.index(kill)])
    assert len(strays_of(path)) == 1, "it was killed at another place"
    assert check_whole(path) == 57


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kill", KILLS)
def test_no_killed_save_of_many_leaves_half_a_file(kill, name, tmp_path) -> None:
    rng = random.Random(f"many {kill} {name}")
    for _ in range(12):
        kill_while_saving(tmp_path / name, kill, delay=rng.uniform(0, 0.3))
        check_whole(tmp_path / name)


@pytest.mark.parametrize("name", ["plan.json", "state.npz"])
def test_the_next_save_removes_what_killed_ones_left(name, tmp_path) -> None:
    path = tmp_path / name
    plan = eplb_np.in_order_plan(2, eplb_np.Topology(8, 12, 4))
    save = plan.save if name.startswith("plan") else Rebalancer(plan.topology, current=plan).save
    for where in PLACES:
        kill_while_saving(path, signal.SIGKILL, where=where)
    strays = strays_of(path)
    assert len(strays) == len(PLACES), "a kill left nothing: the attack tests nothing"
    for stray in strays:
        os.utime(stray, (0, 0))
    others = [tmp_path / f".{name}.mine", tmp_path / f"{name}.old", tmp_path / ".hidden"]
    for other in others:
        other.write_text("of somebody else")
        os.utime(other, (0, 0))
    save(path)
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


FORKING = """
import os, signal, threading, time, warnings
import numpy as np
import eplb_np
warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of fork with threads
topology = eplb_np.Topology(64, 80, 16, 4, 8)
rebalancer = eplb_np.Rebalancer(topology, 24, limits=eplb_np.MoveLimits(total=50))
draws = np.random.default_rng(0)
windows = draws.lognormal(3, 1, (32, 24, 64))  # a generator's lock would not survive a fork
def window():
    return windows[time.perf_counter_ns() % 32]
rebalancer.observe(window())
rebalancer.propose()
stop = threading.Event()

def serve():
    while not stop.is_set():
        {work}

thread = threading.Thread(target=serve)
thread.start()
hung = 0
try:
    for _ in range({forks}):
        time.sleep(draws.uniform(0, 0.02))
        child = os.fork()
        if child == 0:
            signal.alarm(30)
            rebalancer.observe(window())
            rebalancer.propose()
            rebalancer.use(rebalancer.current)
            rebalancer.save({path!r})
            os._exit(0)
        _, status = os.waitpid(child, 0)
        hung += status != 0
        if hung:
            break
finally:
    stop.set()
    thread.join()
rebalancer.propose()
assert hung == 0, "a child hung"
"""
WORK = {
    "proposes": "rebalancer.observe(window()); rebalancer.propose()",
    "saves": "rebalancer.save({path!r})",
}


@pytest.mark.parametrize("work", WORK)
@pytest.mark.parametrize("forks", [3, pytest.param(24, marks=pytest.mark.slow)])
def test_a_child_of_a_fork_can_propose_while_another_thread(work, forks, tmp_path) -> None:
    path = str(tmp_path / "state.npz")
    script = FORKING.format(work=WORK[work].format(path=path), forks=forks, path=path)
    result = attack_python(script)
    assert result.returncode == 0, result.stderr


USING = """
import threading, time
import numpy as np
import eplb_np
topology = eplb_np.Topology(256, 288, 32, 4, 8)
draws = np.random.default_rng(0)
rebalancer = eplb_np.Rebalancer(topology, 40, limits=eplb_np.MoveLimits(total=300))
rebalancer.observe(draws.lognormal(3, 1, (40, 256)))
in_order = eplb_np.in_order_plan(40, topology)
rebalancer.propose()
for _ in range(2):
    rebalancer.use(in_order)
    start = time.perf_counter()
    rebalancer.propose()
    seconds = time.perf_counter() - start
rebalancer.use(in_order)
lost = early = 0
for _ in range({rounds}):
    rebalancer.observe(draws.lognormal(3, 1, (40, 256)))
    started = threading.Event()
    thread = threading.Thread(target=lambda: (started.set(), rebalancer.propose()))
    thread.start()
    started.wait()
    time.sleep(seconds / 3)
    early += thread.is_alive()
    rebalancer.use(in_order)
    thread.join()
    lost += rebalancer.current is not in_order
assert early > 0, f"all proposals were over after {{seconds / 3}} s: the attack tests nothing"
assert lost == 0, f"{{lost}} of {rounds} were lost"
"""


def test_what_is_said_to_be_in_use_during_a_proposal_is_not_lost() -> None:
    result = attack_python(USING.format(rounds=15))
    assert result.returncode == 0, result.stderr
