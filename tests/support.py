"""What several test modules share."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import numba
import numpy as np
import pytest

import eplb_np
import eplb_np.engines

JIT = not numba.config.DISABLE_JIT
PACKAGE = Path(eplb_np.__file__).parent
TESTS = Path(__file__).parent
TIMEOUT = 300  # seconds; a subprocess may have to compile everything on a busy machine

READ = """
import resource, time
{imports}

room = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
start = time.process_time()
try:
    print("read", {read}({path!r}))
except (ValueError, OSError) as error:
    assert "\\n" not in str(error) and {path!r} in str(error), error
    print("refused in", time.process_time() - start, "s:", error)
"""
PUBLIC_READERS = """
import eplb_np, numba
from eplb_np import Plan, Rebalancer
from eplb_np.io.loads import read_loads
"""

needs_jit = pytest.mark.skipif(not JIT, reason="NUMBA_DISABLE_JIT is set")


def compiled(kernel: Callable[..., object]) -> Callable[..., object]:
    """A kernel of ours as Python can call it, compiled: called directly it runs as Python."""

    @numba.njit
    def call(*args):
        return kernel(*args)

    return call


def fewer(number: int, without_jit: int) -> int:
    """Number of random cases: as many as compiled kernels can, or as many as Python can."""
    return number if JIT else without_jit


def engine_modules() -> list[ModuleType]:
    """The modules of engines with public names."""
    names = [info.name for info in iter_modules(eplb_np.engines.__path__)]
    modules = [import_module(f"eplb_np.engines.{name}") for name in names]
    return [module for module in modules if hasattr(module, "__all__")]


def assert_same(actual: Iterable[np.ndarray], expected: Iterable[np.ndarray], label: str) -> None:
    """Equal dtype, shape and bytes, array by array."""
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert (a.dtype, a.shape) == (e.dtype, e.shape), f"result {i} of {label}"
        np.testing.assert_array_equal(a, e, err_msg=f"result {i} of {label}")


@contextmanager
def refused(*parts: str) -> Iterator[None]:
    """Expect a ``ValueError`` of one line that says all of this."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the parts say more than a pattern
        yield
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def run_python(
    *args: str, package: Path = PACKAGE, cwd: Path | None = None, **env: str | None
) -> subprocess.CompletedProcess[str]:
    """Run a fresh Python on this package; ``env`` is added, or removed where it is None."""
    folders = [
        package.parent,
        TESTS,
        TESTS / "reference",
        TESTS / "samples",
    ]  # as for pytest itself
    changed = {"PYTHONPATH": os.pathsep.join(map(str, folders)), **env}
    environment = {k: v for k, v in {**os.environ, **changed}.items() if v is not None}
    return subprocess.run(
        [sys.executable, "-P", *args],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def output_of(code: str, **options: str | Path | None) -> str:
    """What a script prints that must succeed, with warnings as errors."""
    result = run_python("-W", "error", "-c", code, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def copy_package(folder: Path) -> Path:
    """Return a copy of the package's sources, without anything compiled."""
    return Path(
        shutil.copytree(
            PACKAGE, folder / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")
        )
    )


def with_load(layer: int, expert: int, value: object, shape: tuple[int, int] = (2, 12)):
    """Sound loads but for one."""
    load = np.arange(1.0, 1 + shape[0] * shape[1]).reshape(shape)
    load[layer, expert] = value
    return load


def said_of(read: str, path: Path, imports: str = PUBLIC_READERS) -> str:
    """What a process says of a file that may only use 1 GB more than it has to read it."""
    return output_of(READ.format(read=read, path=str(path), imports=imports))


def refusal(read: str, path: Path, imports: str = PUBLIC_READERS) -> str:
    """As `said_of`, of a file that is refused within 2 s."""
    said = said_of(read, path, imports)
    word, _, seconds, *_ = said.split()
    assert word == "refused", said
    assert float(seconds) < 2, said
    return said
