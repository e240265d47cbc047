"""Files of loads and plans, of this package and of serving engines: one module for each format."""

from eplb_np.io.formats import FORMATS, Format
from eplb_np.io.loads import WrittenLoads, read_loads, write_loads
from eplb_np.io.plans import WrittenPlan, read_plan, write_plan
from eplb_np.io.recorded import RecordedLoads

__all__ = [
    "FORMATS",
    "Format",
    "RecordedLoads",
    "WrittenLoads",
    "WrittenPlan",
    "read_loads",
    "read_plan",
    "write_loads",
    "write_plan",
]
