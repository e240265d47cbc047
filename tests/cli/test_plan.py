"""The command line."""

import json
import re

import numpy as np
import pytest
from support import run_python

import eplb_np
from eplb_np import Plan, in_order_plan, make_plan, workloads
from eplb_np.__main__ import main

LOAD = np.random.default_rng(8).integers(1, 100, (4, 12)).astype(float)
LOAD[[0, 2]] = 0
MOE, DENSE = [1, 3], [0, 2]
OPTIONS = ["--replicas", "16", "--gpus", "8", "--nodes", "2", "--groups", "4"]
SIZES = {"num_replicas": 16, "num_gpus": 8, "num_nodes": 2, "num_groups": 4}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with loads in it."""
    np.save(tmp_path / "loads.npy", LOAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Run the command in this process; return exit code, stdout and stderr."""

    def run(*args):
        monkeypatch.setattr("sys.argv", ["eplb-np", *args])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("policy", ["hybrid", "deepseek"])
def test_plan_is_made_and_written(policy, suffix, run, folder):
    code, out, err = run("plan", "loads.npy", *OPTIONS, "--policy", policy, "-o", f"p{suffix}")
    assert (code, err) == (0, "")
    assert f"p{suffix}" in out
    expected = make_plan(LOAD[MOE], **SIZES, policy=policy, moe_layer_ids=MOE)
    assert Plan.load(f"p{suffix}") == expected
    assert files_of(folder) == ["loads.npy", f"p{suffix}"]


def test_summary_for_people(run):
    _, out, _ = run("plan", "loads.npy", *OPTIONS)
    made = make_plan(LOAD[MOE], **SIZES)
    before = in_order_plan(2, made.topology).balancedness(LOAD[MOE])
    assert "loads.npy" in out
    assert "2 MoE layers planned; 2 dense (all zero), left out: 0, 2" in out
    assert "12 experts in 16 slots on 8 GPUs, 2 replicas per GPU" in out
    assert re.search(r"hybrid, hierarchical placement *\n", out)
    assert f"{before:.4f} before" in out
    assert f"{made.balancedness(LOAD[MOE]):.4f} after" in out
    assert re.search(r"worst layer +[13], at 0\.\d{4}", out)
    assert re.search(r"\d\.\d\d ms to plan", out)
    assert "written to" not in out


def test_summary_for_machines(run):
    code, out, err = run("plan", "loads.npy", *OPTIONS, "--json", "-o", "p.json")
    assert (code, err) == (0, "")
    summary = json.loads(out)
    made = Plan.load("p.json")
    gpu_load = made.gpu_load(LOAD[MOE])
    by_layer = eplb_np.layer_balancedness(gpu_load)
    expected = {
        "loads": "loads.npy", "num_layers": 2, "moe_layer_ids": MOE, "dense_layer_ids": DENSE,
        "num_experts": 12, **SIZES, "replicas_per_gpu": 2, "policy": "hybrid",
        "placement": "hierarchical", "output": "p.json",
        "balancedness_before": in_order_plan(2, made.topology).balancedness(LOAD[MOE]),
        "balancedness_after": made.balancedness(LOAD[MOE]),
        "worst_layer_id": MOE[by_layer.argmin()], "worst_layer_balancedness": by_layer.min(),
    }  # fmt: skip
    assert {name: summary[name] for name in expected} == expected
    assert summary["balancedness_after"] <= summary["balancedness_at_most"] <= 1
    assert summary["plan_seconds"] > 0
    assert summary["kernels_ready_seconds"] > 0


@pytest.mark.same_without_jit
def test_without_loads_the_shipped_ones_are_planned(run):
    code, out, _ = run("plan", "--json")
    summary = json.loads(out)
    shipped = workloads.deepseek_v3_load(seed=0)
    dense = np.flatnonzero(~shipped.any(axis=1)).tolist()
    assert code == 0
    assert (summary["num_layers"], summary["num_experts"]) == (58, 256)
    assert summary["dense_layer_ids"] == dense == [0, 1, 2]
    assert summary["balancedness_after"] > summary["balancedness_before"]


def test_steps_are_summed(run, folder):
    np.save("steps.npy", np.stack([LOAD / 2, LOAD / 2]))
    run("plan", "steps.npy", *OPTIONS, "-o", "steps.json")
    run("plan", "loads.npy", *OPTIONS, "-o", "sum.json")
    assert Plan.load("steps.json") == Plan.load("sum.json")


def test_a_global_placement_says_why(run):
    _, out, _ = run("plan", "loads.npy", *OPTIONS, "--groups", "3")
    assert "global placement (2 nodes do not divide 3 groups)" in out


def test_replicas_that_gpus_do_not_divide_are_for_the_refined_policy(run):
    code, out, _ = run(
        "plan", "loads.npy", "--replicas", "19", "--gpus", "8", "--policy", "refined"
    )
    assert code == 0
    assert "19 slots on 8 GPUs, 2 or 3 replicas per GPU" in out
    code, _, err = run("plan", "loads.npy", "--replicas", "19", "--gpus", "8")
    assert code == 2
    assert "policy='refined', which does not need a multiple" in err


def test_names_are_printed_as_they_are(run, folder):
    """Not as the markup or the emoji that they look like."""
    (folder / "[").mkdir()
    name = "[/b][red]:smile:.npy"
    np.save(name, LOAD)
    code, out, _ = run("plan", name, *OPTIONS)
    assert code == 0
    assert name in out


def test_long_names_are_printed_whole(run):
    name = f"{'long' * 40}.npy"
    np.save(name, LOAD)
    _, out, _ = run("plan", name, *OPTIONS)
    assert name in "".join(out.split())


BAD = {
    "no file": (["absent.npy"], ["absent.npy", "No such file"]),
    "no folder": (
        ["loads.npy", *OPTIONS, "-o", "absent/p.json"],
        ["no such folder", "absent/p.json"],
    ),
    "damaged": (["damaged.npz"], ["damaged.npz"]),
    "unknown format": (["loads.txt"], ["loads.txt", ".json, .npy, .npz"]),
    "NaN": (["nan.npy", *OPTIONS], ["nan.npy", "layer 3, expert 5"]),
    "all dense": (["zero.npy", *OPTIONS], ["zero.npy", "all 4 layers are zero"]),
    "sizes": (["loads.npy", "--replicas", "30"], ["num_replicas=30", "num_gpus=32", "32"]),
    "zero": (["loads.npy", "--gpus", "0"], ["num_gpus=0", "at least 1"]),
    "output": (["loads.npy", *OPTIONS, "-o", "p.txt"], ["p.txt", ".json, .npz"]),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("json_wanted", [False, True])
def test_bad_input_is_one_line_on_stderr(json_wanted, kind, run, folder):
    args, parts = BAD[kind]
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 damaged")
    bad = LOAD.copy()
    bad[3, 5] = np.nan
    np.save("nan.npy", bad)
    np.save("zero.npy", 0 * LOAD)
    before = files_of(folder)
    output = [] if "-o" in args else ["-o", "p.json"]
    code, out, err = run("plan", *args, *output, *(["--json"] if json_wanted else []))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"eplb-np: .*\n", err)
    for part in parts:
        assert part in err
    assert files_of(folder) == before


def test_a_bad_output_fails_before_anything_is_done(run, monkeypatch):
    monkeypatch.setattr("eplb_np.cli.plan.read_loads", lambda path: pytest.fail("loads were read"))
    code, _, err = run("plan", "loads.npy", *OPTIONS, "-o", "plan.yaml")
    assert code == 2
    assert "plan.yaml" in err


def test_a_failing_write_leaves_the_old_plan(run, folder, monkeypatch):
    (folder / "p.json").write_text("the old plan")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    code, out, err = run("plan", "loads.npy", *OPTIONS, "-o", "p.json")
    assert (code, out, err) == (2, "", "eplb-np: disk full\n")
    assert (folder / "p.json").read_text() == "the old plan"
    assert files_of(folder) == ["loads.npy", "p.json"]


def test_bad_options_are_refused(run):
    for option in (["--replicas", "many"], ["--policy", "best"], ["--no-such"]):
        code, out, err = run("plan", *option)
        assert (code, out) == (2, "")
        assert option[0] in err


def test_help_and_version(run):
    code, out, _ = run("plan", "--help")
    assert code == 0
    assert all(option in out for option in ("--replicas", "--gpus", "--nodes", "--output"))
    assert run("--version")[1].strip().endswith(eplb_np.__version__)


# ---------------------------------------------------------------------------------------------
# As a process
# ---------------------------------------------------------------------------------------------


@pytest.mark.same_without_jit
def test_module_is_the_command(folder):
    result = run_python("-W", "error", "-m", "eplb_np", "plan", "loads.npy", *OPTIONS, cwd=folder)
    assert (result.returncode, result.stderr) == (0, "")
    assert "GPU balancedness" in result.stdout


@pytest.mark.same_without_jit
def test_a_bad_file_brings_no_traceback(folder):
    (folder / "damaged.json").write_text('{"logical_count": [[1, 2')
    result = run_python("-m", "eplb_np", "plan", "damaged.json", "-o", "p.json", cwd=folder)
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"eplb-np: damaged\.json: .*\n", result.stderr)
    assert files_of(folder) == ["damaged.json", "loads.npy"]


WITHOUT = """
import sys
from eplb_np.__main__ import main

class Missing:
    def find_spec(name, path, target=None):
        if name == {module!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing)
main()
"""


@pytest.mark.parametrize("module", ["click", "rich"])
def test_without_an_extra_it_says_how_to_get_it(module):
    result = run_python("-c", WITHOUT.format(module=module))
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(rf"eplb-np: {module} .*pip install 'eplb-np\[cli\]'\n", result.stderr)


def test_other_missing_modules_are_no_matter_of_extras():
    result = run_python("-c", WITHOUT.format(module="eplb_np.io.loads"))
    assert "ModuleNotFoundError" in result.stderr
    assert "pip install" not in result.stderr
