"""Dumps of SGLang's expert distribution recorder, as ``.pt``.

``stat`` writes one file, of steps; ``per_pass`` and ``per_token`` one for each rank, of forward
passes.
Letters: R layers, P slots, T tokens, K experts of a token.
"""

from __future__ import annotations

import os
import re
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eplb_np._arguments import as_size, one_line
from eplb_np._loads.host import as_array, check_loads
from eplb_np.io.contents import MOST_FILES, Contents, opened
from eplb_np.io.recorded import Asked, Recording, check_map, check_shape, fold, sum_steps
from eplb_np.io.sglang_keys import LOADS, read_counts

RECORDS, LAST_MAP = "records", "last_physical_to_logical_map"
COUNTS, CHOICES = "global_physical_count", "topk_ids_of_layer"

DUMP = r".+\.pt(?:\.gz)?"

NAME = re.compile(
    r"expert_distribution_recorder_(?P<time>\d+(?:\.\d+)?)(?:_(?P<rank>\d{1,6}))?\.pt(?:\.gz)?"
)
"""What the recorder calls a dump: with a rank where each rank writes one."""

LARGEST_ID = 1 << 62

NOTHING = "record while the server has requests"


def read_dump(contents: Contents, asked: Asked) -> Recording:
    """Read one dump, which must not be one of several ranks."""
    found = _dumped(contents)
    if RECORDS not in found:
        return read_counts(found, asked)
    passes = Passes("give the folder with the files of all ranks")
    passes.add(found)
    if asked.num_ranks is None and contents.in_folder:
        _check_alone(contents, passes.ranks)
    return passes.recording(asked)


def read_dumps(contents: Contents, asked: Asked) -> Recording:
    """Read a folder of dumps: of all ranks, or of several times, or both."""
    names = contents.named(DUMP)
    if len(names) == 1:
        with opened(contents.path / next(iter(names))) as dump:
            return read_dump(dump, asked)
    passes = Passes("give the files of all ranks")
    windows: list[_Window] = []
    of_passes = None
    for name in names:
        match = NAME.fullmatch(name)
        with opened(contents.path / name) as dump:
            found = _dumped(dump)
            if of_passes not in (None, RECORDS in found):
                raise ValueError(
                    "it is not of the recorder's mode of the files before it: give a folder of "
                    "one recording"
                )
            of_passes = RECORDS in found
            if of_passes:
                passes.add(found, match["rank"] if match else None)
            else:
                windows.append(_window(found, asked, match["time"] if match else None, windows))
    return passes.recording(asked) if of_passes else _recording_of(windows)


def _dumped(contents: Contents) -> dict[Any, Any]:
    found = contents.value
    if contents.kind != "torch" or contents.keys.isdisjoint((LOADS, RECORDS)):
        raise ValueError(f"it is {contents.describe()}, not a dump of SGLang's recorder")
    dumped: dict[Any, Any] = found
    return dumped


def _check_alone(contents: Contents, ranks: set[int]) -> None:
    """Raise ``ValueError`` if dumps of other ranks lie beside one."""
    with os.scandir(contents.path.parent) as entries:
        matches = (NAME.fullmatch(entry.name) for entry in islice(entries, MOST_FILES))
        others = {int(match["rank"]) for match in matches if match and match["rank"]} - ranks
    if others:
        raise ValueError(
            f"it has the counts of rank {min(ranks, default=0)} alone, and a file of rank "
            f"{min(others)} lies beside it: give the folder with the files of all ranks"
        )


# ---------------------------------------------------------------------------------------------
# A dump of steps is a window
# ---------------------------------------------------------------------------------------------


class _Window(NamedTuple):
    time: float | None
    load: NDArray[np.float64]


def _window(
    found: dict[Any, Any], asked: Asked, time: str | None, earlier: list[_Window]
) -> _Window:
    """Sum a dump over its steps."""
    counts = as_array(read_counts(found, asked).counts, LOADS)
    check_shape(counts.shape, LOADS)
    several = counts.ndim == 3
    load, _ = sum_steps(counts if several else counts[None], LOADS, several)
    if earlier and load.shape != earlier[0].load.shape:
        raise ValueError(
            f"{LOADS} has {load.shape[0]} layers and {load.shape[1]} experts, but the folder's "
            f"first file has {earlier[0].load.shape}: give dumps of one model"
        )
    check_shape((len(earlier) + 1, *load.shape), LOADS)
    return _Window(None if time is None else float(time), load)


def _recording_of(windows: list[_Window]) -> Recording:
    times = [window.time for window in windows]
    known = None not in times and len(set(times)) == len(times)
    if known:
        windows.sort(key=lambda window: window.time or 0)
    counts = np.stack([window.load for window in windows])
    return Recording(counts, in_order=known, every_layer=True, name=LOADS)


# ---------------------------------------------------------------------------------------------
# Forward passes
# ---------------------------------------------------------------------------------------------


class Passes:
    """Counts of slots [R, P] of each forward pass, summed over ranks as their dumps come in."""

    def __init__(self, remedy: str) -> None:
        self.ranks: set[int] = set()
        """Ranks of all records, and of the names of files."""
        self._maps: dict[bytes, NDArray[Any]] = {}
        """Each map [R, P] under which tokens were counted, by its digest."""
        self._remedy = remedy
        self._sums: dict[bytes, dict[int, NDArray[np.float64]]] = {}
        """The counts of each pass, by the digest of their map."""
        self._num_sums = 0
        self._has_load = False
        self._seen: set[tuple[int, int]] = set()
        """Pass and rank of each record."""
        self._ids: set[int] = set()

    def add(self, found: dict[Any, Any], rank_of_name: str | None = None) -> None:
        """Add what a rank dumped."""
        if LAST_MAP not in found:
            raise ValueError(f"it has {RECORDS}, but no {LAST_MAP}")
        experts = check_map(found[LAST_MAP], LAST_MAP)
        key = sha256(experts.tobytes()).digest()
        shape = next(iter(self._maps.values()), experts).shape
        if experts.shape != shape:
            raise ValueError(
                f"its {LAST_MAP} has shape {experts.shape}, but {shape} in the folder's first "
                "file: give dumps of one recording"
            )
        if rank_of_name is not None:
            self.ranks.add(int(rank_of_name))
        records = found[RECORDS]
        if not isinstance(records, (list, tuple)):
            raise ValueError(f"its {RECORDS} are no list")
        if not records:
            return
        self._maps.setdefault(key, experts)
        check_shape((len(self._maps), *shape), LAST_MAP)
        sums = self._sums.setdefault(key, {})
        for number, record in enumerate(records):
            pass_id = self._enter(record, number)
            counts = _counts_of(record, number, shape)
            self._has_load = self._has_load or bool(counts.any())
            if pass_id in sums:
                with np.errstate(over="ignore"):  # what overflows is found, and named
                    sums[pass_id] += counts
            else:
                self._num_sums += 1
                check_shape((self._num_sums, *shape), COUNTS)
                sums[pass_id] = counts.astype(np.float64)

    def _enter(self, record: Any, number: int) -> int:
        """Note whose record of which pass this is, and return the pass."""
        if not isinstance(record, dict):
            raise ValueError(f"its record {number} is no dict")
        for key in ("forward_pass_id", "rank"):
            if key not in record:
                raise ValueError(f"its record {number} has no {key}")
        pass_id = as_size(
            f"forward_pass_id of record {number}", record["forward_pass_id"], 0, LARGEST_ID
        )
        rank = as_size(f"rank of record {number}", record["rank"], 0)
        gatherer = record.get("gatherer_key", "primary")
        if not isinstance(gatherer, str) or gatherer != "primary":
            raise ValueError(
                f"record {number} has gatherer_key={one_line(gatherer)}, and only 'primary' is read"
            )
        if (pass_id, rank) in self._seen:
            raise ValueError(
                f"forward pass {pass_id} of rank {rank} comes twice: give the files of one "
                "recording, each once"
            )
        self._seen.add((pass_id, rank))
        self._ids.add(pass_id)
        self.ranks.add(rank)
        return pass_id

    def recording(self, asked: Asked) -> Recording:
        """Return the passes in order, or raise ``ValueError`` if anything is missing."""
        if not self._ids:
            raise ValueError(f"it has no {RECORDS}: {NOTHING}")
        self._check_complete(asked)
        if not self._has_load:
            raise ValueError(f"all of its {COUNTS} are zero: {NOTHING}")
        ids = sorted(self._ids)
        if len(self._maps) == 1:
            (experts,), (sums,) = self._maps.values(), self._sums.values()
            counts = _stacked(sums, ids)
            return Recording(counts, in_order=True, every_layer=True, phy2log=experts, name=COUNTS)
        return Recording(
            self._folded(ids),
            in_order=True,
            every_layer=True,
            name=COUNTS,
            notes=("the experts were moved meanwhile: each file is counted by its own map",),
        )

    def _folded(self, ids: list[int]) -> NDArray[np.float64]:
        """Return the counts [S, R, E] of experts, each pass added up by its own map, or maps."""
        step_of = {pass_id: step for step, pass_id in enumerate(ids)}
        num_experts = {int(experts.max()) + 1 for experts in self._maps.values()}
        if len(num_experts) > 1:
            raise ValueError(
                f"its maps have {' and '.join(map(str, sorted(num_experts)))} experts: give dumps "
                "of one recording"
            )
        num_rows = next(iter(self._maps.values())).shape[0]
        folded = np.zeros((len(ids), num_rows, num_experts.pop()))
        for key, sums in self._sums.items():
            steps = [step_of[pass_id] for pass_id in sums]
            counts = _stacked(sums, list(sums))
            with np.errstate(over="ignore"):
                folded[steps] += fold(counts, self._maps[key], COUNTS)
        return folded

    def _check_complete(self, asked: Asked) -> None:
        """Raise ``ValueError`` unless every rank has every pass; name the first that is missing."""
        num_ranks = max(self.ranks) + 1
        if asked.num_ranks is not None:
            if asked.num_ranks < num_ranks:
                raise ValueError(f"it has a rank {num_ranks - 1}, but num_ranks={asked.num_ranks}")
            num_ranks = asked.num_ranks
        for rank in range(num_ranks):
            if rank not in self.ranks:
                raise ValueError(
                    f"rank {rank} of {num_ranks} is missing, so its tokens are not counted: "
                    f"{self._remedy}"
                )
        if len(self._seen) == num_ranks * len(self._ids):
            return
        for pass_id in sorted(self._ids):
            for rank in range(num_ranks):
                if (pass_id, rank) not in self._seen:
                    raise ValueError(
                        f"rank {rank} has no forward pass {pass_id}, which others have: "
                        f"{self._remedy}, all dumped at the same time"
                    )


def _stacked(sums: dict[int, NDArray[np.float64]], ids: list[int]) -> NDArray[np.float64]:
    """Return the counts of passes as one array [S, R, P], and keep no other copy."""
    stacked = np.empty((len(ids), *sums[ids[0]].shape))
    for step, pass_id in enumerate(ids):
        stacked[step] = sums.pop(pass_id)
    return stacked


def _counts_of(record: dict[Any, Any], number: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the counts [R, P] of a record, or count the choices of its tokens."""
    if COUNTS in record:
        counts: NDArray[Any] = as_array(record[COUNTS], COUNTS)
        if counts.shape != shape:
            raise ValueError(
                f"{COUNTS} of record {number} has shape {counts.shape}, but {LAST_MAP} has {shape}"
            )
        if not counts.min() >= 0 or not counts.max() < np.inf:
            check_loads(counts, f"{COUNTS} of record {number}")
        return counts
    if CHOICES not in record:
        raise ValueError(f"record {number} has neither {COUNTS} nor {CHOICES}")
    return _counted(as_array(record[CHOICES], CHOICES), number, shape)


def _counted(choices: NDArray[Any], number: int, shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Count slots [R, T, K]; -1 is padding."""
    num_rows, num_slots = shape
    if choices.dtype.kind not in "iu" or choices.ndim != 3 or len(choices) != num_rows:
        raise ValueError(
            f"{CHOICES} of record {number} has shape {choices.shape} and dtype {choices.dtype}: "
            f"give integers [layers, tokens, experts of a token], of {num_rows} layers"
        )
    low, high = int(choices.min(initial=-1)), int(choices.max(initial=-1))
    if low < -1 or high >= num_slots:
        raise ValueError(
            f"{CHOICES} of record {number} has the slot {low if low < -1 else high}: there are "
            f"{num_slots} slots, and -1 is padding"
        )
    counts = np.empty(shape, np.int64)
    for row, chosen in enumerate(choices):  # one by one: a copy of all would be too large
        found = np.bincount(chosen.ravel().astype(np.int64) + 1, minlength=num_slots + 1)
        counts[row] = found[1:]
    return counts
