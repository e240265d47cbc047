"""Lets these tests import the tools of the benchmarks, and gives them results of asv."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "asv_benchmarks" / "tools"
sys.path.insert(0, str(TOOLS))

MACHINE = {"machine": "lab", "os": "", "arch": "", "cpu": "", "num_cpu": "", "ram": ""}
SIZES = ["'small'", "'large'"]
NAN = float("nan")
BALANCEDNESS = "quality.track_gpu_balancedness"
TIME = "plans.time_plan"
ON_GPU = "gpu.time_plan"
BROKEN = "stages.time_broken"
PARAMS = {BALANCEDNESS: [], TIME: [SIZES], ON_GPU: [SIZES], BROKEN: []}


class Folder:
    """Benchmarks with results for some commits, and the repository of these."""

    def __init__(self, path: Path, results: list[dict[str, list[float | None]]]) -> None:
        self.path = path
        self.config = {
            "version": 1,
            "project": "example",
            "repo": "repository",
            "branches": ["HEAD"],
            "results_dir": "results",
            "html_dir": "html",
            "regressions_thresholds": {"quality": 0, "plans": 0.1},
        }
        self.write_config()
        self.commits = [self._commit(i) for i in range(len(results))]
        self._write("results/benchmarks.json", {"version": 2} | described())
        self._write("results/lab/machine.json", {"version": 1} | MACHINE)
        for commit, values in zip(self.commits, results, strict=True):
            self._write(f"results/lab/{commit[:8]}-env.json", result_file(commit, values))

    def write_config(self) -> None:
        """Write ``config``, with a comment as asv allows them."""
        text = json.dumps(self.config, indent=1)
        (self.path / "asv.conf.json").write_text(f"    // of regressions\n{text}")

    def publish(self) -> Path:
        """Let asv publish the results; return where."""
        command = [sys.executable, "-m", "asv", "publish", "--no-pull"]
        subprocess.run(command, cwd=self.path, check=True, capture_output=True)
        return self.path / "html"

    def start_over(self) -> None:
        """Check out a commit that has no history."""
        repository = self.path / "repository"
        git(repository, "checkout", "-q", "--orphan", "other")
        git(repository, "commit", "-q", "--allow-empty", "-m", "start")

    def _write(self, name: str, content: object) -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))

    def _commit(self, number: int) -> str:
        repository = self.path / "repository"
        if number == 0:
            git(self.path, "init", "-q", str(repository))
        git(repository, "commit", "-q", "--allow-empty", "-m", f"{number}")
        return git(repository, "rev-parse", "HEAD").strip()


def git(folder: Path, *arguments: str) -> str:
    """Run git as somebody, whatever the user's configuration."""
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def described() -> dict[str, dict[str, object]]:
    """What asv writes about benchmarks."""
    return {
        name: {
            "name": name,
            "params": params,
            "param_names": ["size"] * len(params),
            "version": "1",
            "type": "track" if "track_" in name else "time",
            "unit": "" if "track_" in name else "seconds",
            "code": "",
        }
        for name, params in PARAMS.items()
    }


def result_file(commit: str, values: dict[str, list[float | None]]) -> dict[str, object]:
    """What asv writes about a commit."""
    return {
        "version": 2,
        "commit_hash": commit,
        "env_name": "env",
        "date": 1_700_000_000_000,
        "params": MACHINE | {"python": "3.11"},
        "python": "3.11",
        "requirements": {},
        "env_vars": {},
        "result_columns": ["result", "params", "version"],
        "results": {name: [value, PARAMS[name], "1"] for name, value in values.items()},
        "durations": {},
    }


def values(balancedness: float, small: float) -> dict[str, list[float | None]]:
    """Results of one commit, on a machine without a GPU."""
    return {
        BALANCEDNESS: [balancedness],
        TIME: [small, 100 * small],
        ON_GPU: [NAN, NAN],
        BROKEN: [None],
    }


@pytest.fixture
def results(tmp_path):
    """Make a folder from one pair for each commit: balancedness and a time."""
    pytest.importorskip("asv", reason="asv is not installed")
    if shutil.which("git") is None:
        pytest.skip("git is not installed")

    def make(*pairs: tuple[float, float]) -> Folder:
        return Folder(tmp_path, [values(*pair) for pair in pairs])

    return make
