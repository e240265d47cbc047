"""How often the published algorithm refines."""

from __future__ import annotations

import numpy as np

GROUP_REFINE_STEPS = np.int64(1)


GPU_REFINE_STEPS = np.int64(2)


NO_REFINE_STEPS = np.int64(0)
