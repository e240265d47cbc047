"""Files that are not part of this project: real loads, and samples of what engines write.

EPLB_NP_LOADS names the folder of the loads, DeepSeek-V3's, six files recorded with SGLang, and
EPLB_NP_INTEROP that of the samples; without these variables, tests that need them may skip.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

LOADS = Path(
    os.environ.get("EPLB_NP_LOADS", Path(__file__).parents[3] / "shared" / "data" / "expert_load")
)
needs_loads = pytest.mark.skipif(
    not LOADS.is_dir(), reason=f"no real loads in {LOADS}: set EPLB_NP_LOADS to their folder"
)

INTEROP = Path(
    os.environ.get("EPLB_NP_INTEROP", Path(__file__).parents[3] / "shared" / "data" / "interop")
)
needs_interop = pytest.mark.skipif(
    not INTEROP.is_dir(), reason=f"no samples in {INTEROP}: set EPLB_NP_INTEROP to their folder"
)


def recorded_loads() -> Iterator[tuple[str, np.ndarray]]:
    """Name and MoE layers of each file."""
    for path in sorted(LOADS.glob("*.json")):
        load = np.array(json.loads(path.read_text())["logical_count"])
        yield path.stem, load[load.any(axis=1)]
