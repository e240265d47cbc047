"""Deployments are written down once; what measures old commits has a copy, and it is the same."""

import importlib.util
from pathlib import Path

import pytest

from eplb_np.workloads.deployments import DEPLOYMENTS

BENCHMARKS = Path(__file__).parents[2] / "asv_benchmarks" / "benchmarks" / "common.py"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_is_what_its_name_says(name):
    deployment = DEPLOYMENTS[name]
    topology = deployment.topology
    sizes = topology.num_replicas, topology.num_groups, topology.num_nodes, topology.num_gpus
    assert sizes == deployment.sizes
    if "global" in name:
        assert name == f"{topology.num_replicas} global {topology.num_gpus}"
    else:
        assert name == "/".join(map(str, sizes))


@pytest.mark.skipif(not BENCHMARKS.exists(), reason="the benchmarks are not in this copy")
def test_the_benchmarks_measure_the_same_deployments():
    spec = importlib.util.spec_from_file_location("benchmarks_common", BENCHMARKS)
    common = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(common)
    for name, deployment in common.DEPLOYMENTS.items():
        sizes = name.split(" ", 1)[1].removeprefix("layer ")
        assert tuple(deployment) == tuple(DEPLOYMENTS[sizes]), name
