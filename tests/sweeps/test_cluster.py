"""Sweeps on a Dask cluster: the same results, whatever workers are killed."""

import json
import os
import signal
import socket
import sys

import numpy as np
import pytest
from support import refused

from eplb_np.sweeps import cluster as cluster_module
from eplb_np.sweeps import grid, sweep
from eplb_np.sweeps.cluster import measure_on_cluster
from eplb_np.sweeps.measure import SweptLoads, as_judging

distributed = pytest.importorskip("distributed")
dask = pytest.importorskip("dask")

LOAD = np.random.default_rng(1).integers(1, 100, (3, 2, 16)).astype(float)
CASES = grid(16, [2, 4], slots_per_gpu=range(8, 23), policies=["deepseek", "hybrid"])


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process; one that is killed is replaced.

    The scheduler gives up what a killed worker was at, at once, and not after the fourth.
    """
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", host="127.0.0.1"
        ) as cluster,
    ):
        yield cluster


def pids(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        return list(client.run(os.getpid).values())


def test_a_killed_worker_loses_nothing(cluster, tmp_path, monkeypatch):
    path = tmp_path / "sweep.jsonl"
    expected = sweep(LOAD, CASES).rows
    doomed = pids(cluster)
    kept = []

    def measure(*args):
        for row in measure_on_cluster(*args):
            kept.append(row)
            if len(kept) == 2:  # all workers: what they hold is lost, the loads too
                for pid in doomed:
                    os.kill(pid, signal.SIGKILL)
            yield row

    monkeypatch.setattr(cluster_module, "measure_on_cluster", measure)
    found = sweep(LOAD, CASES, path=path, dask=cluster.scheduler_address)
    assert found.rows == expected
    assert set(pids(cluster)).isdisjoint(doomed)
    rows = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    done = [(row["num_gpus"], row["num_replicas"], row["policy"]) for row in rows]
    assert len(done) == len(set(done)) == len(CASES.cases) == 60


def test_errors_of_a_case_and_of_other_versions_are_one_line(cluster, monkeypatch):
    address = cluster.scheduler_address
    wrong = SweptLoads(np.full((2, 16), 1e38), None)  # sums exceed float32
    with refused("16 slots on 2 GPUs, deepseek", "2**127"):
        list(measure_on_cluster(CASES.cases[:1], wrong, as_judging(1, 8, None), address))
    monkeypatch.setattr("eplb_np.__version__", "9.9")
    with refused("eplb-np 9.9 asks", "the same version"):
        sweep(LOAD, CASES, dask=address)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(cluster_module, "CONNECT_SECONDS", 0.5)


@pytest.mark.parametrize("kind", ["nobody", "silent", "odd"])
def test_a_wrong_address_is_one_line_soon(kind, impatient):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        if kind == "silent":
            listening.listen()
        address = "http://x" if kind == "odd" else f"tcp://127.0.0.1:{port}"
        with pytest.raises(ConnectionError, match="no Dask scheduler answers at") as error:
            sweep(LOAD, CASES, dask=address)
    assert "\n" not in str(error.value)
    assert address in str(error.value)


def test_a_cluster_without_workers_is_one_line(impatient):
    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0", host="127.0.0.1") as empty,
        pytest.raises(ConnectionError, match="has no worker: start one with dask worker"),
    ):
        sweep(LOAD, CASES, dask=empty.scheduler_address)


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    said = r"distributed.* is not installed: run pip install 'eplb-np\[dask\]'"
    with pytest.raises(ModuleNotFoundError, match=said):
        sweep(LOAD, CASES, dask="tcp://127.0.0.1:1")
