"""Machine code on disk: used where it is sound, and never in the way."""

import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numba
import pytest
from numba.core import config
from numba.core.registry import CPUDispatcher
from support import copy_package, needs_jit, output_of

from eplb_np._numba import cache as _cache
from eplb_np._numba.cache import CHECKSUM_SIZE, KernelCache


def add_one(x):
    return x + 1


def run_kernel(function=add_one):
    """Run as in a new process; return the result, and whether it came from the disk."""
    dispatcher = CPUDispatcher(function, targetoptions={"nopython": True})
    dispatcher._cache = KernelCache(function)
    result = dispatcher(41)
    return result, bool(dispatcher.stats.cache_hits)


COMPILED, LOADED = (42, False), (42, True)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The one folder that can be written."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "kernels").touch()  # a file: nothing can be written below
    monkeypatch.setattr(_cache, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(_cache, "_sources_digest", lambda: "these sources")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "package" / "kernels" / "home"))
    return tmp_path / "cache" / "eplb_np"


def test_the_second_process_does_not_compile(folder):
    assert run_kernel() == COMPILED
    assert [path.suffix for path in folder.iterdir()] == [".kernel"]
    assert run_kernel() == LOADED


def flip_last_byte(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:10],
        lambda content: content[:-1],
        lambda content: content + b"x",
        flip_last_byte,
        lambda content: _with_checksum(b"no pickle"),
        lambda content: _with_checksum(b"N."),  # a sound pickle of None
    ],
    ids=["empty", "cut", "a byte short", "longer", "flipped", "no pickle", "another pickle"],
)
def test_a_damaged_file_heals_itself(damage, folder):
    run_kernel()
    (file,) = folder.iterdir()
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    assert run_kernel() == COMPILED
    assert file.stat().st_size == len(sound)
    assert run_kernel() == LOADED


def _with_checksum(content):
    digest = _cache.hashlib.sha256(content).digest()
    assert len(digest) == CHECKSUM_SIZE
    return digest + content


def test_nowhere_to_write(folder, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", "")
    assert run_kernel() == COMPILED
    assert run_kernel() == COMPILED
    monkeypatch.delenv("HOME")
    assert len(list(_cache._folders())) == 1


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
def test_the_users_cache_is_the_last_resort(variable, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "package" / "kernels"))
    monkeypatch.setenv(variable, str(tmp_path / "user"))
    assert run_kernel() == COMPILED
    subfolder = ".cache/eplb_np" if variable == "HOME" else "eplb_np"
    assert len(list((tmp_path / "user" / subfolder).iterdir())) == 1
    assert run_kernel() == LOADED


def test_the_packages_own_folder_comes_before_the_users(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", "")
    (tmp_path / "package" / "kernels").unlink()
    assert run_kernel() == COMPILED
    assert len(list((tmp_path / "package" / "kernels" / "__pycache__").iterdir())) == 1
    assert run_kernel() == LOADED


@pytest.mark.parametrize(
    ("target", "name", "value"),
    [
        (_cache, "_sources_digest", lambda: "edited sources"),
        (numba, "__version__", "0.0"),
        (config, "OPT", 1),
        (config, "BOUNDSCHECK", 1),
    ],
)
def test_other_circumstances_make_another_file(target, name, value, folder, monkeypatch):
    run_kernel()
    monkeypatch.setattr(target, name, value)
    assert run_kernel() == COMPILED
    assert len(list(folder.iterdir())) == 2


def function_of(module, qualname, added, monkeypatch):
    """``function(x)`` as another file or class may have one of that name, adding something else."""
    namespace = {"__name__": module}
    exec(f"def function(x):\n    return x + {added}\n", namespace)
    monkeypatch.setitem(sys.modules, module, ModuleType(module))  # Numba imports it on loading
    namespace["function"].__qualname__ = qualname
    return namespace["function"]


@pytest.mark.parametrize(
    "other", [("here_too", "function"), ("here", "other.function")], ids=["module", "qualname"]
)
def test_functions_of_one_name_are_not_served_each_others_code(other, folder, monkeypatch):
    first = function_of("here", "function", 1, monkeypatch)
    second = function_of(*other, 100, monkeypatch)
    assert run_kernel(first) == (42, False)
    assert run_kernel(second) == (141, False)
    gc.collect()
    assert run_kernel(first) == (42, True)
    assert run_kernel(second) == (141, True)


def test_the_digest_is_of_every_source_and_where_it_lies(tmp_path, monkeypatch):
    package = copy_package(tmp_path)
    monkeypatch.setattr(_cache, "PACKAGE", package)
    digests = [_cache._sources_digest.__wrapped__()]
    sources = [*package.rglob("*.py")]
    for path in sources:
        path.write_text(path.read_text() + "\n")
        digests.append(_cache._sources_digest.__wrapped__())
    (package / "another_room").mkdir()
    moved = (package / "kernels" / "__init__.py").rename(package / "another_room" / "__init__.py")
    digests.append(_cache._sources_digest.__wrapped__())
    moved.rename(moved.with_name("renamed.py"))
    digests.append(_cache._sources_digest.__wrapped__())
    assert len(set(digests)) == len(sources) + 3 > 50


def test_code_that_cannot_be_stored_is_compiled(folder, monkeypatch):
    monkeypatch.setattr(_cache, "_is_cachable", lambda compiled: False)
    assert run_kernel() == COMPILED
    assert not folder.exists()

    def fail(*args):
        raise AttributeError("a Numba of the future")

    monkeypatch.setattr(_cache, "_is_cachable", fail)
    assert run_kernel() == COMPILED
    assert not folder.exists()


def test_numbas_interface(folder):
    cache = KernelCache(add_one)
    assert cache.cache_path == str(folder)
    cache.enable()
    cache.disable()
    cache.flush()
    run_kernel()
    assert run_kernel() == LOADED


REPLICATE = """
import numpy as np
from eplb_np.kernels import replicate_layers
phy2log, rank, logcnt = (np.empty((1, n), np.int64) for n in (10, 10, 4))
replicate_layers(np.array([[9, 8, 1, 1]], np.float32), phy2log, rank, logcnt)
print(logcnt.tolist(), sum(replicate_layers.stats.cache_hits.values()))
"""


@needs_jit
def test_code_of_other_sources_is_never_used(tmp_path):
    """A helper in another file is edited, which Numba's own cache does not notice."""
    package = copy_package(tmp_path)
    helper = package / "stages" / "decisions.py"
    original = helper.read_text()
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}

    assert output_of(REPLICATE, package=package, **home) == "[[4, 4, 1, 1]] 0"
    assert output_of(REPLICATE, package=package, **home) == "[[4, 4, 1, 1]] 1"
    edited = original.replace("return weight / np.float32(count)", "return weight")
    assert edited != original
    helper.write_text(edited)
    assert output_of(REPLICATE, package=package, **home) == "[[6, 2, 1, 1]] 0"
    helper.write_text(original)
    assert output_of(REPLICATE, package=package, **home) == "[[4, 4, 1, 1]] 1"


@pytest.mark.slow  # sixteen processes compile on as many cores as there are
@needs_jit
def test_sixteen_processes_that_start_at_once_share_a_cache(tmp_path):
    package = copy_package(tmp_path)
    code = "import eplb_np; print(eplb_np.replicate_experts([[90, 30, 10]], 5)[2].tolist())"
    with ThreadPoolExecutor(16) as pool:
        started = [pool.submit(output_of, code, package=package) for _ in range(16)]
        assert {process.result() for process in started} == {"[[3, 1, 1]]"}
    files = sorted((package / "kernels" / "__pycache__").glob("*.kernel"))
    assert len(files) == 2  # the check of the loads, and the stage
    contents = [file.read_bytes() for file in files]
    assert all(_cache._read(file) is not None for file in files)
    assert output_of(code, package=package) == "[[3, 1, 1]]"
    assert [file.read_bytes() for file in files] == contents
    assert not list((package / "kernels" / "__pycache__").glob(".*"))  # no temporary file is left
