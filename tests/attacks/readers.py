"""Every reader of files, and files that it reads: a new reader is one more row of `READERS`."""

from __future__ import annotations

import itertools
import json
import random
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import format_files
import numpy as np
from arena import Allowed, Problems, TooSlow, end_limit, limit_call
from mutations import change_json, damage_bytes, damage_json, damage_npy, damage_zip
from plain_check import check_one_line, check_plan

import eplb_np
from eplb_np import MoveLimits, Plan, Rebalancer, Topology, make_plan
from eplb_np.io import read_loads

LOADS = np.random.default_rng(7).integers(0, 100, (3, 3, 12)).astype(np.float64)
LOADS[:, 1] = 0  # a dense layer
TOPOLOGIES = (
    Topology(12, 16, 8, 2, 4),
    Topology(12, 18, 4, 2, 3, [6, 3, 4, 5], [1.0, 2.0, 1.0, 0.5], [0, 1, 3]),
)
ALLOWED = Allowed(cpu_seconds=60, asleep_seconds=30)
ALLOWED_LONG = Allowed(cpu_seconds=1500, asleep_seconds=30, wall_seconds=3000)


class Reader(NamedTuple):
    """A reader, what it reads, and what must hold for what it returns."""

    suffix: str
    write: Callable[[Path, int], object]
    """Writes the first or second sample."""
    read: Callable[[Path], Any]
    check: Callable[[Any], None]
    damage: Callable[..., bytes]
    """Damages the structure of a file, not only its bytes."""


def write_plan(path: Path, sample: int) -> None:
    plan = make_plan(LOADS[0], TOPOLOGIES[sample], policy="refined", moe_layer_ids=[2, 3, 5])
    plan.save(path)


def check_read_plan(plan: Plan) -> None:
    """What was read is a plan, and can be measured."""
    check_plan(plan, [range(1, plan.topology.num_experts + 1)] * plan.num_layers)


def write_rebalancer(path: Path, sample: int) -> None:
    limits = MoveLimits(total=4, per_gpu=2, price=0.5) if sample else None
    rebalancer = Rebalancer(TOPOLOGIES[sample], 3, limits=limits)
    for window in LOADS:
        rebalancer.observe(window)
        rebalancer.propose()
    rebalancer.save(path)


def check_rebalancer(rebalancer: Rebalancer) -> None:
    """What was restored can go on, and what it proposes is a plan."""
    shape = (rebalancer._num_layers, rebalancer.topology.num_experts)
    rebalancer.observe(np.arange(float(np.prod(shape))).reshape(shape))
    check_plan(rebalancer.propose().plan)
    check_plan(rebalancer.current)


def write_loads(path: Path, sample: int) -> None:
    values = LOADS[0].astype(np.float32) if sample else LOADS
    if path.suffix == ".json":
        path.write_text('{"logical_count": %s}' % values.astype(int).tolist())  # noqa: UP031
    elif path.suffix == ".npy":
        np.save(path, np.asfortranarray(values))
    else:
        np.savez_compressed(path, logical_count=values, steps=np.arange(3))


def check_loads(recorded: Any) -> None:
    assert recorded.load.dtype == np.float64
    rows = recorded.load.tolist()
    assert rows
    assert len(rows) == len(recorded.moe_layer_ids)
    assert all(0 <= value < float("inf") for row in rows for value in row)
    assert all(any(row) for row in rows)
    ids = sorted([*recorded.moe_layer_ids, *recorded.dense_layer_ids])
    assert ids == list(range(len(ids)))


READERS = {
    "Plan.load .json": Reader(".json", write_plan, Plan.load, check_read_plan, damage_json),
    "Plan.load .npz": Reader(".npz", write_plan, Plan.load, check_read_plan, damage_zip),
    "Rebalancer.load .npz": Reader(
        ".npz", write_rebalancer, Rebalancer.load, check_rebalancer, damage_zip
    ),
    "read_loads .json": Reader(".json", write_loads, read_loads, check_loads, damage_json),
    "read_loads .npy": Reader(".npy", write_loads, read_loads, check_loads, damage_npy),
    "read_loads .npz": Reader(".npz", write_loads, read_loads, check_loads, damage_zip),
}
WITH_TOPOLOGY = [name for name in READERS if not name.startswith("read_loads")]
for name, (suffix, write, read, damage) in format_files.RECORDINGS.items():
    READERS[f"read_loads {name}"] = Reader(suffix, write, read, check_loads, damage)
for name, (suffix, write, read, damage) in format_files.PLANS.items():
    READERS[f"read_plan {name}"] = Reader(suffix, write, read, check_read_plan, damage)

HUGE = (10**6, 10**9, 2**31, 2**40, 2**63, 10**30)
SPEEDS = (5e-324, 1e-320, 1e-308, 1e-200, 1e200, 1e308)


MOST_EXTREME = 60
"""Files with extreme numbers of a kind, in the short form."""


def huge_sizes() -> Iterator[dict[str, Any]]:
    """Topologies whose sizes no memory holds: each alone, and two or three that fit each other."""
    fields = ("num_experts", "num_replicas", "num_gpus", "num_nodes", "num_groups")
    for count in (1, 2, 3):
        for names in itertools.combinations(fields, count):
            yield from (dict.fromkeys(names, size) for size in HUGE)


def extreme_speeds() -> Iterator[dict[str, Any]]:
    """Topologies whose speeds are at the end of what a float64 can say."""
    for speed in SPEEDS:
        yield from ({"gpu_speeds": [*[1.0] * i, *[speed] * (4 - i)]} for i in range(4))


EXTREME = {"sizes": huge_sizes, "speeds": extreme_speeds}


def damaged_files(name: str, number: int, seed: int) -> Problems:
    """Attack a reader with damage of every kind."""
    reader = READERS[name]
    rng = random.Random(f"{name} {seed}")
    samples = _samples(reader)
    damages = (damage_bytes, reader.damage, reader.damage)
    files = (rng.choice(damages)(rng.choice(samples), rng) for _ in range(number))
    problems, counts = _attack(reader, files)
    if counts["read"] < number / 100 or counts["refused"] < number / 4:
        problems.setdefault("wrong", []).append(f"an attack that tests little: {counts}")
    return problems


def extreme_files(name: str, kind: str, long: bool) -> Problems:
    """Attack a reader with extreme numbers in a topology."""
    reader = READERS[name]
    sample = _samples(reader)[1]
    keys = ("topology", "plan_topology") if name.startswith("Rebalancer") else ("topology",)
    changes = list(itertools.product(keys, EXTREME[kind]()))
    if not long and len(changes) > MOST_EXTREME:
        changes = random.Random(f"{name} {kind}").sample(changes, MOST_EXTREME)
    files = (
        change_json(sample, lambda text, key=key, new=new: _with(text, key, new))
        for key, new in changes
    )
    return _attack(reader, files)[0]


def _with(text: bytes, key: str, new: dict[str, Any]) -> bytes:
    content = json.loads(text)
    if key in content:
        content[key].update(new)
        if "gpu_speeds" not in new:
            content[key].update(gpu_slots=None, gpu_speeds=None, active_gpus=[0, 1, 2])
    return json.dumps(content).encode()


def _samples(reader: Reader) -> list[bytes]:
    """Sound files, which the reader reads."""
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"sound{reader.suffix}"
        for sample in range(2):
            reader.write(path, sample)
            samples.append(path.read_bytes())
            reader.check(reader.read(path))
    return samples


def _attack(reader: Reader, files: Iterable[bytes]) -> tuple[Problems, dict[str, int]]:
    """Read damaged files, and note what a reader must never do."""
    problems: Problems = {}
    counts = {"read": 0, "refused": 0}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"damaged{reader.suffix}"
        for i, content in enumerate(files):
            path.write_bytes(content)
            said = _read(reader, path, counts)
            for kind, text in said.items():
                problems.setdefault(kind, []).append(f"file {i}: {text}")
            if "slow" in said.get("wrong", ""):
                break
    return {kind: texts[:5] for kind, texts in problems.items()}, counts


def _read(reader: Reader, path: Path, counts: dict[str, int]) -> dict[str, str]:
    """Read one file; return what was wrong with that, by kind."""
    said = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        limit_call()
        try:
            found = reader.read(path)
            reader.check(found)
            counts["read"] += 1
        except (ValueError, OSError) as error:
            counts["refused"] += 1
            message = str(error)
            wrong = check_one_line(error) or ("" if str(path) in message else message[:300])
            if wrong:
                said["wrong"] = wrong
            if not message.isprintable():
                said["unprintable"] = repr(message[:300])
        except TooSlow:
            said["wrong"] = "too slow: more than 2 s of CPU time"
        except Exception as error:  # noqa: BLE001 - which is what is looked for
            said["wrong"] = f"{type(error).__name__}: {str(error)[:300]}"
        finally:
            end_limit()
    if caught:
        said["warning"] = str(caught[0].message)[:300]
    return said


def cases(long: bool) -> dict[str, Callable[[], Problems]]:
    """Every reader against damaged files, and those of topologies against extreme numbers."""
    eplb_np.warmup()  # the children share what is compiled
    number = 5000 if long else 60
    damaged = {name: lambda name=name: damaged_files(name, number, int(long)) for name in READERS}
    extreme = {
        f"{name}, {kind}": lambda name=name, kind=kind: extreme_files(name, kind, long)
        for name in WITH_TOPOLOGY
        for kind in EXTREME
    }
    return damaged | extreme
