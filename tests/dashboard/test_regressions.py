"""What counts as a regression: each change of an exact figure, and no noise of a time."""

import ast

import pytest

regressions = pytest.importorskip("regressions", reason="the benchmarks are not in this copy")

EXACT, NOISY = 0.0, 0.1
MORE_IS_BETTER = {
    "quality.Quality.track_gpu_balancedness",
    "quality.Quality.track_replica_balancedness",
    "replay.Replay.track_points_above_deepseek",
    "split.SplitQuality.track_gpu_balancedness",
    "split.SplitQuality.track_gpu_balancedness_of_even_split",
    "split.SplitMoves.track_gpu_balancedness",
}
PREFIXES = ("time_", "timeraw_", "track_", "peakmem_")


def judged(values, threshold, benchmark="quality.track_moved"):
    """Positions, and values before and after."""
    series = regressions.Series(
        benchmark, None, None, "", {}, [str(i) for i in range(len(values))], values
    )
    return [tuple(found) for found in regressions.judge(series, threshold)]


def test_each_worsening_of_an_exact_figure_counts():
    assert judged([5, 5, 5, 5, 5.0005], EXACT) == [(4, 5, 5.0005)]
    assert judged([5, 6, 7], EXACT) == [(1, 5, 6), (2, 6, 7)]
    assert judged([5, 4, 4.5], EXACT) == [(2, 4, 4.5)]
    assert judged([5, 5, 4], EXACT) == []
    assert judged([-2, -1], EXACT) == [(1, -2, -1)]


def test_where_more_is_better_a_fall_is_a_loss():
    name = "quality.Quality.track_gpu_balancedness"
    assert judged([0.9, 0.8], EXACT, name) == [(1, 0.9, 0.8)]
    assert judged([0.8, 0.9], EXACT, name) == []
    assert judged([0.5, -0.5], EXACT, "replay.Replay.track_points_above_deepseek")


@pytest.mark.parametrize(
    "times",
    [
        [1.0, 1.0, 1.0, 1.5],
        [1.0, 1.0, 1.5, 1.0, 1.0],
        [1.0, 1.0, 1.5, 1.0, 1.5, 1.0],
        [1.0, 1.05, 1.08, 1.09, 1.08],
        [0.5, 1.0, 1.0, 1.0],
        [1.0, 1.5, 1.5],
    ],
    ids=["newest", "once", "twice apart", "within the threshold", "one fast before", "one before"],
)
def test_noise_is_no_regression(times):
    assert judged(times, NOISY) == []


def test_a_time_that_is_longer_in_two_commits_is_a_regression():
    assert judged([1.0, 1.02, 1.5, 1.4, 1.6], NOISY) == [(2, 1.02, 1.4)]


def test_many_small_steps_are_found_and_then_counted_from_there():
    times = [1.0, 1.0, 1.04, 1.08, 1.12, 1.16, 1.16, 1.16]
    assert judged(times, NOISY) == [(4, 1.0, 1.12)]


def test_what_has_recovered_is_not_listed():
    assert judged([5, 6, 5], EXACT) == []
    assert judged([1.0, 1.0, 1.5, 1.5, 1.05, 1.0], NOISY) == []
    assert judged([1.0, 1.0, 1.5, 1.5, 1.0], NOISY) == [(2, 1.0, 1.5)]  # one fast run says nothing


def benchmarks():
    """Names of all benchmarks, read from their files."""
    for file in sorted((regressions.BENCHMARKS / "benchmarks").glob("*.py")):
        tree = ast.parse(file.read_text())
        for function, place in functions(tree, file.stem):
            if function.startswith(PREFIXES):
                yield f"{place}.{function}"


def functions(node, place):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child.name, place
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, f"{place}.{child.name}")


@pytest.mark.parametrize("name", list(benchmarks()))
def test_each_benchmark_has_a_threshold_of_its_own(name):
    config = regressions.read_config(regressions.BENCHMARKS / "asv.conf.json")
    (threshold,) = regressions.values_for(name, config["regressions_thresholds"])
    measures_time = ".track_" not in name or name.startswith(("cold_start", "idle"))
    assert (threshold > 0) == measures_time


def test_more_is_better_for_these_benchmarks():
    assert {name for name in benchmarks() if regressions.MORE_IS_BETTER.search(name)} == (
        MORE_IS_BETTER
    )


GOOD, WORSE = (0.9, 1e-4), (0.8, 1e-4)


def test_a_line_for_each_regression_and_an_exit_code(results, capsys):
    folder = results(GOOD, GOOD, WORSE, WORSE)
    assert regressions.main([str(folder.path)]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        "quality.track_gpu_balancedness: 0.9 -> 0.8 , 11.1 % worse"
        f" since {folder.commits[2][:8]} on lab"
    ]
    assert printed.err == "1 of 3 series have become worse\n"  # what was skipped does not count


def test_slow_twice_in_a_row_is_reported_by_parameters(results, capsys):
    folder = results(GOOD, GOOD, (0.9, 2e-4), (0.9, 2e-4))
    assert regressions.main([str(folder.path)]) == 1
    small, large = sorted(capsys.readouterr().out.splitlines(), reverse=True)
    assert small.startswith("plans.time_plan('small'): 0.0001 -> 0.0002 seconds, 100 % worse")
    assert large.startswith("plans.time_plan('large'): 0.01 -> 0.02 seconds")


def test_nothing_worse_is_exit_code_0(results, capsys):
    assert regressions.main([str(results(GOOD, GOOD, (0.9, 2e-4)).path)]) == 0
    assert capsys.readouterr().out == ""


def test_an_accepted_loss_is_not_reported(results):
    folder = results(GOOD, GOOD, WORSE, WORSE)
    before, last, loss, _ = folder.commits
    for not_judged, code in ((loss[:10], 0), (last, 0), (before, 1), (None, 0)):
        folder.config["regressions_first_commits"] = {"quality": not_judged}
        folder.write_config()
        assert regressions.main([str(folder.path)]) == code


def test_results_of_another_history_are_an_error(results):
    folder = results(GOOD, GOOD)
    folder.start_over()
    with pytest.raises(SystemExit, match=r"none of the 2 results .* fetch the whole history"):
        regressions.main([str(folder.path)])


def test_no_results_are_an_error(results):
    folder = results(GOOD)
    (folder.path / "results" / "benchmarks.json").unlink()
    with pytest.raises(SystemExit, match="has no results: run `make bench` first"):
        regressions.main([str(folder.path)])


def test_the_page_says_the_thresholds_of_the_configuration():
    page = regressions.BENCHMARKS.parent / "docs" / "dashboard.md"
    table = page.read_text().partition("| figures |")[2].partition("\n\n")[0]
    said = [row.split("|")[2].strip() for row in table.splitlines()[2:]]
    config = regressions.read_config(regressions.BENCHMARKS / "asv.conf.json")
    thresholds = config["regressions_thresholds"].values()
    assert said == [f"{100 * t:.0f} %" if t else "0" for t in thresholds]
