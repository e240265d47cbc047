"""What to type to get the parts of a report again, from what was typed for the report."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from eplb_np.cli.options import Loads, Sizes
from eplb_np.cli.streams import is_dash
from eplb_np.topology import Topology

PLAN = "plan.json"
START = "in_order.json"
STANDARD_INPUT = "LOADS"
"""What commands call loads that came from standard input."""


@dataclass(frozen=True)
class Typed:
    """The arguments of the report, as they were given."""

    loads: Loads
    sizes: Sizes
    current: Path | None
    first_window: int
    num_windows: int
    expert_bytes: int | None

    def compare(self, topology: Topology) -> str:
        """Return the command that compares policies."""
        return self._line("compare", *self._deployment(topology), *self._windows)

    def replay(self, topology: Topology, planners: list[str]) -> str:
        """Return the command that replays the steps."""
        sizes = self._sizes_of(topology)
        return self._line("replay", *sizes, *self._windows, "--planners", ",".join(planners))

    def sweep(self, topology: Topology) -> str:
        """Return the command that sweeps sizes."""
        sizes = self._sizes_of(topology, replicas=False)
        return self._line("sweep", *sizes, *self._windows, *self._bytes)

    def plan(self, topology: Topology) -> str:
        """Return the command that makes the plan."""
        return self._line("plan", *self._deployment(topology), "-o", PLAN)

    def diff(self) -> str:
        """Return the command that says what to move."""
        old = START if self.current is None else _no_option(self.current)
        return _joined("diff", old, PLAN, *self._loads, *self._plan_sizes, *self._bytes)

    def show(self) -> str:
        """Return the command that draws the plan."""
        return _joined("show", PLAN, *self._loads, "-o", "plan.svg")

    @property
    def start_in_python(self) -> list[str]:
        """What writes the plan that serving stacks start with."""
        return [
            "from dataclasses import replace",
            "from eplb_np import Plan, in_order_plan",
            f'plan = Plan.load("{PLAN}")',
            "start = in_order_plan(plan.num_layers, plan.topology)",
            f'replace(start, moe_layer_ids=plan.moe_layer_ids).save("{START}")',
        ]

    @property
    def picture_in_python(self) -> list[str]:
        """What draws the loads."""
        options = "" if self.loads.format is None else f", {self.loads.format!r}"
        if self.loads.in_order is not None:
            options += f", in_order={self.loads.in_order}"
        return [
            "from eplb_np import io, pictures",
            f"loads = io.read_loads({self._name!r}{options})",
            'pictures.save(pictures.expert_loads(loads.windows), "loads.svg")',
        ]

    def _line(self, command: str, *words: str) -> str:
        return _joined(command, *self._loads, *words)

    @property
    def _name(self) -> str:
        path = self.loads.path
        return STANDARD_INPUT if path is None or is_dash(path) else str(path)

    @property
    def _loads(self) -> list[str]:
        words = [_no_option(Path(self._name))]
        if self.loads.format is not None:
            words += ["--format", self.loads.format]
        if self.loads.in_order is not None:
            words.append("--in-order" if self.loads.in_order else "--summed")
        return words

    @property
    def _windows(self) -> list[str]:
        words = [] if self.first_window == 1 else ["--first-window", str(self.first_window)]
        return words + ([] if self.num_windows == 8 else ["--windows", str(self.num_windows)])

    @property
    def _bytes(self) -> list[str]:
        return [] if self.expert_bytes is None else ["--expert-bytes", str(self.expert_bytes)]

    @property
    def _plan_sizes(self) -> list[str]:
        """Sizes that the file of the plan in use may not say."""
        if self.current is None:
            return []
        given = {"gpus": self.sizes.gpus, "nodes": self.sizes.nodes, "groups": self.sizes.groups}
        return [
            word
            for name, size in given.items()
            if size is not None
            for word in (f"--{name}", str(size))
        ]

    def _deployment(self, topology: Topology) -> list[str]:
        if self.current is None:
            return self._sizes_of(topology)
        return [*self._plan_sizes, "--current", _no_option(self.current)]

    def _sizes_of(self, topology: Topology, *, replicas: bool = True) -> list[str]:
        words = ["--replicas", str(topology.num_replicas)] if replicas else []
        words += ["--gpus", str(topology.num_gpus)]
        if topology.num_nodes > 1:
            words += ["--nodes", str(topology.num_nodes)]
        if topology.num_groups > 1:
            words += ["--groups", str(topology.num_groups)]
        return words


def _joined(command: str, *words: str) -> str:
    return shlex.join(["eplb-np", command, *words])


def _no_option(path: Path) -> str:
    """Return the name of a file so that it is not taken for an option."""
    name = str(path)
    return f"./{name}" if name.startswith("-") and not is_dash(path) else name
