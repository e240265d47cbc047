"""No file that somebody else could have written is run as a kernel."""

import hashlib
import os
import pickle
from pathlib import Path

import pytest
from arena import attack_python
from support import copy_package, needs_jit, run_python

pytestmark = needs_jit

NOBODY = 65534
CALL = "import eplb_np; print(eplb_np.replicate_experts([[90, 30, 10]], 5)[2].tolist())"
SOUND = "[[3, 1, 1]]"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


class Mine:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def sound_cache(tmp_path_factory):
    """A cache as the package makes it, and the package, which has no other cache."""
    folder = tmp_path_factory.mktemp("cache")
    package = copy_package(folder)
    home = folder / "home"
    home.mkdir()
    cache = folder / "cache"
    cache.mkdir(mode=0o700)
    assert call(package, cache, home) == SOUND
    return package, cache, home


def call(package: Path, cache: Path | str, home: Path, **options) -> str:
    """What a process says that plans with these folders."""
    result = run_python(
        "-W", "error", "-c", CALL, package=package, NUMBA_CACHE_DIR=str(cache), HOME=str(home),
        XDG_CACHE_HOME=None, **options,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def compiled_package(tmp_path_factory):
    """A package with a cache of its own, so that who refuses a planted file need not compile."""
    folder = tmp_path_factory.mktemp("compiled")
    package = copy_package(folder)
    assert call(package, "", folder) == SOUND
    return package


@pytest.fixture
def planted(sound_cache, compiled_package, tmp_path):
    """A cache whose files do something else; how to plan with it, and what it must not do."""
    _, good, home = sound_cache
    marker = tmp_path / "marker"
    content = pickle.dumps(Mine(marker))
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    (cache / "eplb_np").mkdir(mode=0o700)
    files = []
    for file in good.rglob("*.kernel"):
        files.append(cache / "eplb_np" / file.name)
        files[-1].write_bytes(hashlib.sha256(content).digest() + content)
        files[-1].chmod(0o600)
    assert files

    def plan_with_it() -> None:
        assert call(compiled_package, cache, home) == SOUND

    return files, plan_with_it, marker


def test_the_planted_files_would_be_run(planted) -> None:
    """Else the tests below would test nothing."""
    _, plan_with_it, marker = planted
    plan_with_it()
    assert marker.exists()


def folder_of_all(files):
    files[0].parent.chmod(0o777)


def folder_of_the_group(files):
    files[0].parent.chmod(0o770)


def folder_above_of_all(files):
    files[0].parent.parent.chmod(0o777)


def file_of_all(files):
    for file in files:
        file.chmod(0o666)


def file_of_another(files):
    for file in files:
        os.chown(file, NOBODY, -1)


def folder_of_another(files):
    os.chown(files[0].parent, NOBODY, -1)


def links(files):
    for file in files:
        elsewhere = file.with_suffix(".elsewhere")
        file.rename(elsewhere)
        file.symlink_to(elsewhere)


def folder_is_a_link(files):
    folder = files[0].parent
    elsewhere = folder.with_name("elsewhere")
    folder.rename(elsewhere)
    elsewhere.chmod(0o777)
    folder.symlink_to(elsewhere)


PLANTS = [
    folder_of_all, folder_of_the_group, folder_above_of_all, file_of_all, links, folder_is_a_link,
    pytest.param(file_of_another, marks=needs_root),
    pytest.param(folder_of_another, marks=needs_root),
]  # fmt: skip


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_file_is_not_run(plant, planted) -> None:
    files, plan_with_it, marker = planted
    plant(files)
    plan_with_it()
    assert not marker.exists()


WAITS = """
import signal, eplb_np
signal.alarm(20)  # compiling takes less
print(eplb_np.replicate_experts([[90, 30, 10]], 5)[2].tolist())
"""


def test_a_fifo_in_a_files_place_is_not_waited_for(planted, tmp_path) -> None:
    files, _, _ = planted
    for file in files:
        file.unlink()
        os.mkfifo(file)
    result = attack_python(WAITS, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    assert (result.returncode, result.stdout.strip()) == (0, SOUND)


def test_what_the_cache_makes_is_the_users_alone(sound_cache, tmp_path) -> None:
    package = sound_cache[0]
    home = tmp_path / "home"  # others have left kernels in that of the fixture by now
    home.mkdir()
    before = os.umask(0)
    try:
        assert call(package, tmp_path / "new" / "cache", home) == SOUND
    finally:
        os.umask(before)
    made = [path for path in (tmp_path / "new").rglob("*") if path.name != "new"]
    modes = {(path.is_dir(), oct(path.stat().st_mode & 0o777)) for path in made}
    assert modes == {(True, "0o700"), (False, "0o600")}


def test_a_relative_folder_is_not_made_in_the_working_folder(sound_cache, tmp_path) -> None:
    package, _, home = sound_cache
    assert call(package, "cache", home, cwd=tmp_path) == SOUND
    assert not any(tmp_path.iterdir())
