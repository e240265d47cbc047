"""The package's own plans, which `Plan.save` writes: topology, ranks and policy included."""

from __future__ import annotations

from eplb_np.io.contents import Contents
from eplb_np.io.placements import Consumer
from eplb_np.plan import Plan
from eplb_np.plan_files import PLAN_FILE, fields_of_file

CONSUMER = Consumer("eplb_np", PLAN_FILE.suffixes)


def recognise(contents: Contents) -> bool:
    """Whether this is a plan that `Plan.save` wrote."""
    if contents.kind == "npz":
        return set(PLAN_FILE.tables) < contents.npz.members.keys()
    found = contents.json if contents.kind == "json" else None
    return isinstance(found, dict) and found.get("format") == PLAN_FILE.name


def read_plan(contents: Contents) -> Plan:
    """Read a plan as a whole: no other format holds all of it."""
    content = PLAN_FILE.read(contents.file, as_json=contents.kind == "json")
    return Plan(*fields_of_file(content))
