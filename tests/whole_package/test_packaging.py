"""What is built of the sources: it installs, leaves nothing behind, and can test itself."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from support import PACKAGE, TESTS, TIMEOUT

import eplb_np

pytestmark = [pytest.mark.slow, pytest.mark.same_without_jit]

HERE = Path(sysconfig.get_path("purelib"))


class Environment:
    """A virtual environment that borrows this one's dependencies, but not this package."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        self.python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
        said = self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        self.packages = Path(said.stdout.strip())
        # A folder on the path, whose own .pth files (an editable install's) do not count.
        (self.packages / "borrowed.pth").write_text(f"{HERE}\n")

    def run(self, *args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        ours = ("PYTHON", "NUMBA_", "COV", "PIP_USER", "XDG_CACHE")
        env = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        return subprocess.run(
            [self.python, *map(str, args)], cwd=cwd or self.home, text=True, capture_output=True,
            env={**env, "HOME": str(self.home)}, timeout=4 * TIMEOUT, check=False,
        )  # fmt: skip

    def succeeds(self, *args: object, cwd: Path | None = None) -> str:
        result = self.run(*args, cwd=cwd)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    if (HERE / "eplb_np").exists():
        pytest.skip("the package is installed here, where the new environment would find it")
    made = Environment(tmp_path_factory.mktemp("environment"))
    if made.run("-m", "pip", "install", "-q", "hatchling>=1.25").returncode != 0:
        pytest.skip("pip cannot download hatchling, which builds the package")
    return made


@pytest.fixture(scope="module")
def sdist(environment, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    environment.succeeds("-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=TESTS.parent)
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="module")
def wheel(environment, unpacked, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    environment.succeeds("-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=unpacked)
    (built,) = folder.glob("*.whl")
    return built


def sources(folder: Path) -> set[str]:
    """The package's own files, as they come without running it."""
    paths = [*folder.rglob("*.py"), folder / "py.typed"]
    return {path.relative_to(folder.parent).as_posix() for path in paths}


def test_a_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (record,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        said = message_from_bytes(archive.read(record))
    assert names == sources(PACKAGE)
    assert (said["Name"], said["Version"]) == ("eplb-np", eplb_np.__version__)
    assert said["License-Expression"] == "MIT"
    assert said.get_all("License-File") == ["LICENSE"]
    needed = [line for line in said.get_all("Requires-Dist") if "extra ==" not in line]
    assert [re.match(r"\w+", line)[0] for line in needed] == ["numba", "numpy"]
    assert "# eplb_np" in said.get_payload()


def test_an_sdist_holds_what_make_test_needs_and_nothing_else(unpacked):
    names = {path.name for path in unpacked.iterdir()}
    assert names == {
        "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "PKG-INFO",
        "README.md", "RELEASING.md", "asv_benchmarks", "conftest.py", "docs", "eplb_np",
        "pyproject.toml", "tests", ".gitignore",
    }  # fmt: skip
    assert sources(unpacked / "eplb_np") == sources(PACKAGE)
    endings = {path.suffix for path in unpacked.rglob("*") if path.is_file()}
    made = {".pyc", ".kernel", ".nbi", ".nbc", ".html", ".whl", ".gz", ".log"}
    assert endings.isdisjoint(made), endings & made
    built = ("results", "env", "_build", "__pycache__", "api")
    assert not [path for path in unpacked.rglob("*") if path.is_dir() and path.name in built]


def test_nothing_remains_after_pip_uninstall(environment, sdist):
    pip = ("-m", "pip", "-q")
    before = sorted(environment.packages.iterdir())
    environment.succeeds(
        *pip, "install", "--no-deps", "--no-build-isolation", "--ignore-installed", sdist
    )
    plan = (
        "import eplb_np; print(eplb_np.__file__);"
        "print(eplb_np.make_plan([[3.0, 1.0]], num_replicas=4, num_gpus=2).balancedness([[3, 1]]))"
    )
    where, balancedness = environment.succeeds("-c", plan).splitlines()
    assert Path(where).is_relative_to(environment.packages)
    assert float(balancedness) == 1
    environment.succeeds(*pip, "uninstall", "-y", "eplb-np")
    assert sorted(environment.packages.iterdir()) == before
    result = environment.run("-c", "import eplb_np")
    assert result.returncode == 1
    assert "ModuleNotFoundError: No module named 'eplb_np'" in result.stderr


def test_an_sdist_can_run_its_own_tests(environment, unpacked):
    pytest_here = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    collected = environment.succeeds(*pytest_here, "--collect-only", cwd=unpacked)
    assert "tests/whole_package/test_golden.py" in collected
    assert "README.md" in collected
    where = environment.succeeds("-c", "import eplb_np; print(eplb_np.__file__)", cwd=unpacked)
    assert Path(where.strip()).is_relative_to(unpacked)
    some = ("tests/test_topology.py", "tests/_files", "tests/attacks/test_guarantees.py")
    assert " passed" in environment.succeeds(*pytest_here, *some, cwd=unpacked)
