"""Runs attacks each in a forked child, which may hang, crash or eat memory without harm.

A *case* is a function without arguments. It returns the problems that it found, by kind; the arena
adds those of the kinds ``crash``, ``hang``, ``time`` and ``memory``.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest
from support import PACKAGE, TESTS, run_python

Problems = dict[str, list[str]]
Cases = Mapping[str, Callable[[], Problems]]

CPU_SECONDS = 2.0
PEAK_BYTES = 1 << 30
HARMFUL = ("wrong", "crash", "hang", "time", "memory")


class Allowed(NamedTuple):
    """What one case may take."""

    cpu_seconds: float = CPU_SECONDS
    peak_bytes: int = PEAK_BYTES
    asleep_seconds: float = 1.5
    """Who sleeps for so long waits for ever; a child that lacks a CPU does not sleep."""
    wall_seconds: float = 120.0


class TooSlow(BaseException):
    """No parser's ``except Exception`` may swallow it."""


def limit_call() -> None:
    """Raise `TooSlow` in this process after the CPU time that a single call may take."""
    signal.signal(signal.SIGPROF, _give_up)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)


def _give_up(*args: object) -> None:
    raise TooSlow


def end_limit() -> None:
    """Undo `limit_call`."""
    signal.setitimer(signal.ITIMER_PROF, 0)


def run_cases(cases: Cases, allowed: Allowed) -> dict[str, Problems]:
    """Run every case in a child of its own, one after the other."""
    gc.collect()
    gc.freeze()  # a collection in a child would copy all that it shares
    return {name: _run(case, allowed) for name, case in cases.items()}


def _run(case: Callable[[], Problems], allowed: Allowed) -> Problems:
    before = _status("VmRSS")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _act(case, writer, allowed)
    os.close(writer)
    said, hung = _listen(reader, child, allowed)
    if hung:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    problems: Problems = json.loads(said) if said else {}
    if hung:
        problems["hang"] = ["it waited for what would never come"]
    elif status != 0:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status}"
        problems["crash"] = [f"the process ended with {how}"]
    seconds = usage.ru_utime + usage.ru_stime
    if seconds > allowed.cpu_seconds:
        problems["time"] = [f"{seconds:.1f} s of CPU time"]
    peak = usage.ru_maxrss * 1024 - before
    if peak > allowed.peak_bytes:
        problems["memory"] = [f"{peak / 2**30:.2f} GB"]
    return problems


def _act(case: Callable[[], Problems], writer: int, allowed: Allowed) -> None:
    """Run a case in the child and end it."""
    try:
        room = _status("VmSize") + 4 * allowed.peak_bytes  # beyond that the machine suffers
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
        seconds = int(allowed.cpu_seconds) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        problems = case()
    except BaseException as error:  # noqa: BLE001 - told by the parent
        problems = {"wrong": ["".join(traceback.format_exception(error))]}
    os.write(writer, json.dumps(problems).encode()[: 1 << 15])
    os._exit(0)


def _listen(reader: int, child: int, allowed: Allowed) -> tuple[bytes, bool]:
    """Return what a child says before it ends, and whether it had to be waited for too long."""
    start = awake = time.monotonic()
    said = b""
    with os.fdopen(reader, "rb", buffering=0) as pipe:
        while (now := time.monotonic()) < min(
            awake + allowed.asleep_seconds, start + allowed.wall_seconds
        ):
            if select.select([pipe], [], [], 0.1)[0]:
                piece = pipe.read(1 << 16)
                if not piece:
                    return said, False
                said += piece
            elif Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] != "S":
                awake = now
    return said, True


def _status(name: str) -> int:
    """Memory of this process, in bytes."""
    (line,) = (s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(name))
    return int(line.split()[1]) * 1024


def main(module: str, long: str) -> None:
    """Run the cases of a module and print their problems: what `outcomes` starts."""
    attack = import_module(module)
    allowed = getattr(attack, "ALLOWED_LONG" if long == "long" else "ALLOWED", Allowed())
    print(json.dumps(run_cases(attack.cases(long == "long"), allowed)))  # noqa: T201


@cache
def outcomes(module: str, *, long: bool = False, **env: str) -> dict[str, Problems]:
    """Return the problems of every case of a module, found by a fresh Python process."""
    script = f"import arena; arena.main({module!r}, {'long' if long else ''!r})"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o1777)  # cases may give root's rights up
        result = attack_python(script, TMPDIR=folder, **env)
    assert result.returncode == 0, result.stderr
    found: dict[str, Problems] = json.loads(result.stdout.splitlines()[-1])
    return found


def attack_python(code: str, *args: str, cwd: Path | None = None, **env: str | None):
    """Run a script in a fresh Python that can import the attacks."""
    folders = [PACKAGE.parent, TESTS, TESTS / "samples", Path(__file__).parent]
    path = os.pathsep.join(map(str, folders))
    return run_python("-c", code, *args, cwd=cwd, PYTHONPATH=path, **env)


def held(problems: Problems, *kinds: str) -> None:
    """Fail with the problems of these kinds, if there are any."""
    found = {kind: problems[kind] for kind in kinds if kind in problems}
    assert not found, "\n".join(f"{kind}: {text}" for kind in found for text in found[kind])


def each(names):
    """Parametrize a test by the names of cases."""
    return pytest.mark.parametrize("name", list(names))
