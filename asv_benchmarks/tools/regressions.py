"""Judge asv's results: what has become worse, and is it more than noise?

    python asv_benchmarks/tools/regressions.py

Prints a line for each regression and exits with 1 if there is one, so that a CI job can end with
it.

asv's own list does not fit these benchmarks. It fits steps to each curve, which leaves out small
changes of figures without noise; it lists the newest commit after a single slow run; and it takes
any growth for a loss, and no fall. The thresholds and first commits are those of ``asv.conf.json``:

- A threshold of 0 says that a figure is deterministic. Each worsening counts.
- Other figures are noisy. Two commits in a row must be worse, by the threshold, than the best two
  in a row before. So nothing is said before four commits are measured.

What has recovered since is not listed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

BENCHMARKS = Path(__file__).parents[1]
MORE_IS_BETTER = re.compile(r"\.track_(\w*balancedness\w*|points_above_\w+)$")
NOISY_RUN = 2  # results in a row that must agree


class Rules(NamedTuple):
    """What ``asv.conf.json`` says of regressions: patterns of names, and a value for each."""

    thresholds: dict[str, float]
    first_commits: dict[str, str | None]

    def threshold(self, name: str) -> float:
        """Return how much worse a figure must become; as in asv, the largest that matches."""
        return max(values_for(name, self.thresholds), default=0.05)


class Series(NamedTuple):
    """Results of one benchmark for one combination of parameters, oldest commit first."""

    benchmark: str
    parameters: tuple[str, ...] | None
    index: int | None  # of the combination; None if the benchmark has no parameters
    unit: str
    environment: dict[str, str]  # machine, Python, versions
    commits: list[str]
    values: list[float]

    @property
    def name(self) -> str:
        """Its name as asv writes it, with the parameters."""
        return self.benchmark + (f"({', '.join(self.parameters)})" if self.parameters else "")

    @property
    def more_is_better(self) -> bool:
        """Whether a fall is a loss."""
        return MORE_IS_BETTER.search(self.benchmark) is not None


class Worsening(NamedTuple):
    """A commit since which a figure is worse."""

    position: int  # in the series
    before: float
    after: float


class Regression(NamedTuple):
    """A series that has become worse, once or several times."""

    series: Series
    worsenings: list[Worsening]


def worsenings(values: Sequence[float], threshold: float, run: int) -> list[Worsening]:
    """Find where values grew for good.

    Parameters
    ----------
    values : sequence of float
        Oldest first. Less is better.
    threshold : float
        By how much of itself a value must grow.
    run : int
        How many values in a row must have grown, over the best level that as many held before.
        Counting from the best level finds many small steps, too.
    """
    found = []
    best = math.inf
    for i in range(run, len(values) - run + 1):
        best = min(best, max(values[i - run : i]))
        grown = values[i : i + run]
        if min(grown) > limit(best, threshold):
            found.append(Worsening(i, best, min(grown)))
            best = max(grown)
    return [w for w in found if not recovered(values, w, threshold, run)]


def limit(best: float, threshold: float) -> float:
    """Return the largest value that is no worse than ``best``, which may be negative."""
    return best + threshold * abs(best)


def recovered(values: Sequence[float], found: Worsening, threshold: float, run: int) -> bool:
    """Return whether later values were again no worse than before."""
    starts = range(found.position + 1, len(values) - run + 1)
    return any(max(values[i : i + run]) <= limit(found.before, threshold) for i in starts)


def judge(series: Series, threshold: float) -> list[Worsening]:
    """Find the worsenings of a series, whichever direction is worse."""
    sign = -1 if series.more_is_better else 1
    run = 1 if threshold == 0 else NOISY_RUN
    found = worsenings([sign * value for value in series.values], threshold, run)
    return [Worsening(w.position, sign * w.before, sign * w.after) for w in found]


class Report(NamedTuple):
    """All that there is to say of a folder of results."""

    commits: list[str]  # of the branch, oldest first
    benchmarks: dict[str, dict[str, Any]]
    measured: list[Measured]
    num_series: int
    regressions: list[Regression]


def judge_all(folder: Path) -> Report:
    """Judge all results in a folder of asv benchmarks.

    Raises
    ------
    ValueError
        If there is nothing to judge.
    """
    config = read_config(folder / "asv.conf.json")
    rules = Rules(
        config.get("regressions_thresholds", {}), config.get("regressions_first_commits", {})
    )
    commits = history(folder / config["repo"])
    benchmarks, measured = read_results(folder / config["results_dir"], commits)
    num_series, found = 0, []
    for group, name in itertools.product(measured, sorted(benchmarks)):
        for whole in series_of(benchmarks[name], group):
            num_series += 1
            series = since_first_commit(whole, rules.first_commits, commits)
            worse = judge(series, rules.threshold(series.name))
            if worse:
                found.append(Regression(series, worse))
    return Report(commits, benchmarks, measured, num_series, found)


def since_first_commit(
    series: Series, first_commits: dict[str, str | None], commits: list[str]
) -> Series:
    """Leave out what the configuration says not to judge: a commit and all before it."""
    start = 0
    for name in values_for(series.name, first_commits):
        if name is None:
            start = len(commits)
        else:
            after = [i + 1 for i, commit in enumerate(commits) if commit.startswith(name)]
            start = max([start, *after])
    judged = set(commits[start:])
    kept = [i for i, commit in enumerate(series.commits) if commit in judged]
    return series._replace(
        commits=[series.commits[i] for i in kept], values=[series.values[i] for i in kept]
    )


def values_for(name: str, patterns: dict[str, Any]) -> Iterator[Any]:
    """Yield the values of the patterns that a benchmark's name begins with."""
    return (value for pattern, value in patterns.items() if re.match(pattern, name))


def read_config(file: Path) -> dict[str, Any]:
    """Read asv's configuration: JSON with lines that are comments."""
    return json.loads(re.sub(r"^\s*//.*$", "", file.read_text(), flags=re.MULTILINE))


def history(repository: Path) -> list[str]:
    """Return the commits of the branch that is checked out, oldest first, as asv follows it."""
    command = ["git", "rev-list", "--first-parent", "--reverse", "HEAD"]
    done = subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout.split()


class Measured(NamedTuple):
    """What asv has measured on one machine with one set of versions."""

    environment: dict[str, str]
    results: list[Any]  # asv's, oldest commit first

    def values(self, benchmark: dict[str, Any]) -> Iterator[tuple[str, list[float | None]]]:
        """Yield commits and a benchmark's values: NaN was skipped and None has failed.

        Results of an older version of the benchmark are left out, as in asv.
        """
        name = benchmark["name"]
        for result in self.results:
            if name in result.get_result_keys({name: benchmark}):
                yield result.commit_hash, result.get_result_value(name, benchmark["params"])


def read_results(
    results: Path, commits: list[str]
) -> tuple[dict[str, dict[str, Any]], list[Measured]]:
    """Return asv's descriptions of the benchmarks, and the results for some commits.

    Results of different machines, or of other versions of the dependencies, are kept apart: they
    cannot be compared.
    """
    from asv.results import iter_results

    description = results / "benchmarks.json"
    if not description.exists():
        raise ValueError(f"{results} has no results: run `make bench` first")
    benchmarks = json.loads(description.read_text())
    del benchmarks["version"]  # of the file
    order = {commit: i for i, commit in enumerate(commits)}
    everything = list(iter_results(str(results)))
    known = sorted(
        (result for result in everything if result.commit_hash in order),
        key=lambda result: order[result.commit_hash],
    )
    if not known:
        raise ValueError(
            f"none of the {len(everything)} results is of a commit in the history of what is"
            " checked out: fetch the whole history"
        )
    groups: dict[str, list[Any]] = {}
    for result in known:
        environment = result.params | {f"env-{k}": v for k, v in result.env_vars.items()}
        groups.setdefault(json.dumps(environment, sort_keys=True), []).append(result)
    return benchmarks, [Measured(json.loads(key), group) for key, group in groups.items()]


def series_of(benchmark: dict[str, Any], measured: Measured) -> Iterator[Series]:
    """Yield the series of a benchmark, one for each combination of parameters with a value."""
    combinations = list(itertools.product(*benchmark["params"]))
    points: list[list[tuple[str, float]]] = [[] for _ in combinations]
    for commit, values in measured.values(benchmark):
        for point, value in zip(points, values, strict=True):
            if value is not None and not math.isnan(value):
                point.append((commit, value))
    for index, (parameters, point) in enumerate(zip(combinations, points, strict=True)):
        if point:
            commits, values = map(list, zip(*point, strict=True))
            yield Series(
                benchmark=benchmark["name"],
                parameters=parameters or None,
                index=index if parameters else None,
                unit=benchmark.get("unit", ""),
                environment=measured.environment,
                commits=commits,
                values=values,
            )


def describe(regression: Regression) -> Iterator[str]:
    """Yield a line for each worsening."""
    series = regression.series
    for worsening in regression.worsenings:
        before, after = worsening.before, worsening.after
        change = f"{100 * abs(after / before - 1):.3g} % worse" if before else "worse"
        yield (
            f"{series.name}: {before:.6g} -> {after:.6g} {series.unit}, {change}"
            f" since {series.commits[worsening.position][:8]} on {series.environment['machine']}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the regressions, and return 1 if there are some."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=BENCHMARKS,
        help="where asv.conf.json is; by default this repository's benchmarks",
    )
    folder = parser.parse_args(arguments).folder
    try:
        report = judge_all(folder)
    except ValueError as error:
        sys.exit(str(error))
    for regression in report.regressions:
        for line in describe(regression):
            print(line)
    worse = len(report.regressions)
    print(f"{worse} of {report.num_series} series have become worse", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
