"""Machine code on disk: used where it is sound, and never in the way."""

import ast
import gc
import os
import signal
import stat
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numba
import pytest
from numba.core import config
from numba.core.registry import CPUDispatcher
from support import copy_package, needs_jit, output_of, run_python

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
    (tmp_path / "file").touch()  # nothing can be written below
    monkeypatch.setattr(_cache, "_sources_digest", lambda: "these sources")
    monkeypatch.setattr(_cache, "_tidied", set())
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file" / "home"))
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
    damaged = damage(file.read_bytes())
    file.write_bytes(damaged)
    assert run_kernel() == COMPILED
    assert file.read_bytes() != damaged
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
    assert list(_cache._folders()) == []
    assert KernelCache(add_one).cache_path == ""
    assert run_kernel() == COMPILED


@pytest.mark.parametrize("variable", ["HOME", "XDG_CACHE_HOME"])
@pytest.mark.parametrize("unusable", ["", "file", "relative"])
def test_the_users_cache_is_the_other_place(unusable, variable, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "file") * (unusable == "file"))
    if unusable == "relative":
        monkeypatch.setattr(config, "CACHE_DIR", "cache")
    monkeypatch.setenv(variable, str(tmp_path / "user"))
    assert run_kernel() == COMPILED
    subfolder = ".cache/eplb_np" if variable == "HOME" else "eplb_np"
    assert len(list((tmp_path / "user" / subfolder).iterdir())) == 1
    assert run_kernel() == LOADED


def test_relative_folders_are_ignored(folder, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(config, "CACHE_DIR", "cache")
    monkeypatch.setenv("XDG_CACHE_HOME", "xdg")
    assert run_kernel() == COMPILED
    monkeypatch.setenv("HOME", "home")
    assert run_kernel() == COMPILED
    assert not any((tmp_path / "work").iterdir())
    monkeypatch.setenv("HOME", str(tmp_path / "user"))  # in place of a relative XDG_CACHE_HOME
    assert run_kernel() == COMPILED
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


def of_another_user(file):
    os.chown(file, NOBODY, -1)


def of_a_group_that_can_write(file):
    file.chmod(0o660)


def of_all(file):
    file.chmod(0o602)


def a_link(file):
    elsewhere = file.rename(file.with_suffix(".elsewhere"))
    file.symlink_to(elsewhere)


def a_fifo(file):
    file.unlink()
    os.mkfifo(file, 0o600)


def a_folder(file):
    file.unlink()
    file.mkdir(0o700)


def a_huge_file(file):
    os.truncate(file, _cache.MOST_BYTES + 1)


def in_a_folder_of_another_user(file):
    os.chown(file.parent, NOBODY, -1)


def in_a_folder_of_a_group(file):
    file.parent.chmod(0o770)


def in_a_sticky_folder_of_all(file):
    file.parent.chmod(0o1777)


def below_a_folder_of_all(file):
    file.parent.parent.chmod(0o777)


def below_a_folder_of_another_user(file):
    os.chown(file.parent.parent, NOBODY, -1)


def in_a_link_to_a_folder(file):
    elsewhere = file.parent.rename(file.parent.with_name("elsewhere"))
    file.parent.symlink_to(elsewhere)


def below_a_link_of_another_user(file):
    elsewhere = file.parent.parent.rename(file.parent.parent.with_name("elsewhere"))
    file.parent.parent.symlink_to(elsewhere)
    os.chown(file.parent.parent, NOBODY, -1, follow_symlinks=False)


NOBODY = 65534
needs_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)
needs_owners = pytest.mark.skipif(os.name == "nt", reason="this system has no such owners")
CHANGES_BY_OTHERS = [
    of_a_group_that_can_write, of_all, a_link, a_fifo, a_folder, a_huge_file,
    in_a_folder_of_a_group, in_a_sticky_folder_of_all, below_a_folder_of_all, in_a_link_to_a_folder,
    pytest.param(of_another_user, marks=needs_root),
    pytest.param(in_a_folder_of_another_user, marks=needs_root),
    pytest.param(below_a_folder_of_another_user, marks=needs_root),
    pytest.param(below_a_link_of_another_user, marks=needs_root),
]  # fmt: skip


@needs_owners
@pytest.mark.parametrize("change", CHANGES_BY_OTHERS)
def test_what_others_could_have_written_is_not_used(change, folder, monkeypatch):
    run_kernel()
    (file,) = folder.iterdir()
    change(file)
    unpickled = []
    monkeypatch.setattr(_cache.pickle, "loads", unpickled.append)
    hung = []

    def interrupt(*args):
        hung.append(args)
        raise OSError("it would wait for ever")

    old = signal.signal(signal.SIGALRM, interrupt)
    signal.alarm(20)
    try:
        assert run_kernel() == COMPILED
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert not unpickled
    assert not hung


@needs_owners
def test_links_of_the_user_above_the_folder_are_followed(folder, tmp_path, monkeypatch):
    (tmp_path / "disk" / "scratch").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("disk/../disk/scratch")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    (tmp_path / "circle").symlink_to("circle")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "absolute"))
    assert run_kernel() == COMPILED
    assert run_kernel() == LOADED
    assert len(list((tmp_path / "disk" / "scratch" / "eplb_np").iterdir())) == 1
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "circle"))
    assert run_kernel() == COMPILED


@needs_owners
def test_in_a_sticky_folder_a_folder_of_our_own_is_made(folder, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o1777)  # as /tmp
    assert run_kernel() == COMPILED
    assert run_kernel() == LOADED


@needs_owners
@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_what_is_made_is_the_users_alone(umask, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache" / "deeper"))
    before = os.umask(umask)
    try:
        run_kernel()
    finally:
        os.umask(before)
    made = [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]
    assert len(made) == 4
    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in made}
    assert modes == {(True, 0o700), (False, 0o600)}
    assert run_kernel() == LOADED


PLANT = """
import os, sys, hashlib, pickle
os.setresuid(65534, 65534, 65534)
class Evil:
    def __reduce__(self):
        return print, ("run by", os.getuid())
content = pickle.dumps(Evil())
for name in sys.argv[2:]:
    os.makedirs(os.path.join(sys.argv[1], "eplb_np"), exist_ok=True)
    with open(os.path.join(sys.argv[1], "eplb_np", name), "wb") as file:
        file.write(hashlib.sha256(content).digest() + content)
"""


@needs_jit
@needs_root
def test_what_another_user_plants_is_not_run(tmp_path):
    """In a folder that all can write to, as a cache of several users would be."""
    package = copy_package(tmp_path)
    here = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}
    code = "import eplb_np; print(eplb_np.replicate_experts([[90, 30, 10]], 5)[2].tolist())"
    assert output_of(code, package=package, **here) == "[[3, 1, 1]]"
    names = [file.name for file in (tmp_path / "home").rglob("*.kernel")]
    assert len(names) == 2
    with shared_folder() as shared:
        result = run_python("-c", PLANT, str(shared), *names)
        assert result.returncode == 0, result.stderr
        here["NUMBA_CACHE_DIR"] = str(shared)
        assert output_of(code, package=package, **here) == "[[3, 1, 1]]"


@needs_root
def test_other_users_read_what_root_left_for_them(folder, monkeypatch):
    """As when an image is built. They can read neither pytest's folder nor root's home."""
    with shared_folder(0o755) as shared:
        monkeypatch.setattr(config, "CACHE_DIR", str(shared / "cache"))
        assert run_kernel() == COMPILED
        assert as_nobody(run_kernel) == COMPILED
        (file,) = (shared / "cache" / "eplb_np").iterdir()
        for path in (file.parent.parent, file.parent, file):
            path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o055 if path.is_dir() else 0o044))
        os.utime(file, (0, 0))  # which they cannot change
        assert as_nobody(run_kernel) == LOADED


def as_nobody(function):
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside pytest's threads
        child = os.fork()
    if child == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)
        os.write(writer, repr(function()).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        return ast.literal_eval(file.read())


@contextmanager
def shared_folder(mode=0o777):
    """A folder that another user can reach and write to, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(mode)
        yield Path(name)


@needs_owners
def test_files_that_nobody_has_read_for_long_are_removed(folder, tmp_path, monkeypatch):
    run_kernel()
    (used,) = folder.iterdir()
    digest = "0123456789abcdef" * 2
    old = [
        folder / f"planner-{digest}.kernel",
        folder / f".x-{digest}.kernel.{digest[:16]}.eplb_np-tmp",
    ]
    recent = [folder / f"recent-{digest}.kernel"]
    others = [folder / "notes.txt", folder / "a-b.kernel", folder / ".x.kernel.0123"]
    for path in [*old, *others, *recent]:
        path.touch()
    (folder / f"folder-{digest}.kernel").mkdir()
    (folder / f"link-{digest}.kernel").symlink_to(folder / "notes.txt")
    others += [folder / f"folder-{digest}.kernel", folder / f"link-{digest}.kernel"]
    long_ago = time.time() - 61 * 86400
    for path in [*old, *others, used]:
        os.utime(path, (long_ago, long_ago), follow_symlinks=False)

    assert run_kernel() == LOADED  # which makes it recent
    assert used.stat().st_mtime > time.time() - 3600
    assert run_kernel(another_kernel) == (43, False)
    assert set(old) <= set(folder.iterdir())  # once per process, when its first file is written
    monkeypatch.setattr(_cache, "_tidied", set())
    monkeypatch.setattr(numba, "__version__", "0.0")
    assert run_kernel() == COMPILED
    left = set(folder.iterdir())
    assert not left & set(old)
    assert {used, *others, *recent} <= left


def another_kernel(x):
    return x + 2


@needs_jit
def test_nothing_is_written_into_the_package(tmp_path):
    package = copy_package(tmp_path)
    before = sorted(package.rglob("*"))
    home = {"HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None}
    assert output_of(REPLICATE, package=package, PYTHONDONTWRITEBYTECODE="1", **home)
    assert sorted(package.rglob("*")) == before


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
    folder = tmp_path / "cache" / "eplb_np"
    here = {"package": package, "NUMBA_CACHE_DIR": str(folder.parent)}
    with ThreadPoolExecutor(16) as pool:
        started = [pool.submit(output_of, code, **here) for _ in range(16)]
        assert {process.result() for process in started} == {"[[3, 1, 1]]"}
    files = sorted(folder.glob("*.kernel"))
    assert len(files) == 2  # the check of the loads, and the stage
    contents = [file.read_bytes() for file in files]
    assert all(_cache._read(folder, file.name) is not None for file in files)
    assert output_of(code, **here) == "[[3, 1, 1]]"
    assert [file.read_bytes() for file in files] == contents
    assert not list(folder.glob(".*"))  # no temporary file is left
