"""Plans on real loads, against digests that the slow twin made."""

import json

import pytest
from make_golden import DEPLOYMENTS, GOLDEN, POLICIES, digests_of
from recorded import needs_loads, recorded_loads
from support import needs_jit

from eplb_np import rebalance_experts

EXPECTED = json.loads(GOLDEN.read_text())

# Mean over the six files, as published for this algorithm and for the original.
MEAN_BALANCEDNESS = {
    "hybrid": [0.8138, 0.9784, 0.9824, 0.9937, 0.7714, 0.9515],
    "deepseek": [0.8120, 0.9763, 0.9814, 0.9931, 0.7622],
}


@needs_jit  # 72 plans take seconds compiled, and an hour interpreted
@needs_loads
@pytest.mark.parametrize("policy", POLICIES)
def test_plans_on_real_loads_are_the_golden_ones(policy):
    loads = dict(recorded_loads())
    assert loads.keys() == EXPECTED.keys()
    for name, load in loads.items():
        for deployment, sizes in DEPLOYMENTS.items():
            arrays = rebalance_experts(load, *sizes, policy=policy)
            golden = EXPECTED[name][deployment][policy]
            assert golden.items() >= digests_of(arrays).items(), (name, deployment)


@pytest.mark.parametrize("policy", POLICIES)
def test_golden_plans_are_as_balanced_as_published(policy):
    for deployment, published in zip(DEPLOYMENTS, MEAN_BALANCEDNESS[policy], strict=False):
        figures = [plans[deployment][policy]["balancedness"] for plans in EXPECTED.values()]
        assert len(figures) == 6
        assert sum(figures) / 6 == pytest.approx(published, abs=1e-4), deployment
