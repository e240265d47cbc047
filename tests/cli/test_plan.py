"""The command line."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from support import PACKAGE, TIMEOUT, run_python

import eplb_np
from eplb_np import Plan, in_order_plan, make_plan, workloads

LOAD = np.random.default_rng(8).integers(1, 100, (4, 12)).astype(float)
LOAD[[0, 2]] = 0
MOE, DENSE = [1, 3], [0, 2]
OPTIONS = ["--replicas", "16", "--gpus", "8", "--nodes", "2", "--groups", "4"]
SIZES = {"num_replicas": 16, "num_gpus": 8, "num_nodes": 2, "num_groups": 4}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with loads in it."""
    np.save(tmp_path / "loads.npy", LOAD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_of(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("policy", ["hybrid", "deepseek", "refined"])
def test_plan_is_made_and_written(policy, suffix, run, folder):
    code, out, err = run("plan", "loads.npy", *OPTIONS, "--policy", policy, "-o", f"p{suffix}")
    assert (code, err) == (0, "")
    assert f"p{suffix}" in out
    expected = make_plan(LOAD[MOE], **SIZES, policy=policy, moe_layer_ids=MOE)
    assert Plan.load(f"p{suffix}") == expected
    assert files_of(folder) == ["loads.npy", f"p{suffix}"]


def test_summary_for_people(run):
    _, out, _ = run("plan", "loads.npy", *OPTIONS)
    made = make_plan(LOAD[MOE], **SIZES, policy="refined")
    before = in_order_plan(2, made.topology).balancedness(LOAD[MOE])
    assert "loads.npy" in out
    assert "2 MoE layers planned; 2 dense (all zero), left out: 0, 2" in out
    assert "12 experts in 16 slots on 8 GPUs of 2 nodes, 2 replicas per GPU" in out
    assert re.search(r"refined, hierarchical placement *\n", out)
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
        "num_experts": 12, **SIZES, "replicas_per_gpu": 2, "policy": "refined",
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


STEPS = np.stack([LOAD, 3 * LOAD[:, ::-1], 0 * LOAD, 2 * LOAD])


def test_steps_in_order_are_forecast_from(run, folder):
    np.save("steps.npy", STEPS)
    _, out, _ = run("plan", "steps.npy", *OPTIONS, "-o", "steps.json")
    assert "3 steps in order, from which the next one is forecast" in out
    assert "steps without load, which are left out: 1 of 4" in out
    expected = make_plan(STEPS[[0, 1, 3]][:, MOE], **SIZES, policy="refined", moe_layer_ids=MOE)
    assert Plan.load("steps.json") == expected


@pytest.mark.parametrize(("name", "option"), [("steps.npy", ["--summed"]), ("steps.json", [])])
def test_steps_in_no_known_order_are_summed(name, option, run, folder):
    np.save("steps.npy", STEPS)
    Path("steps.json").write_text(json.dumps({"logical_count": STEPS.tolist()}))
    _, out, _ = run("plan", name, *OPTIONS, *option, "-o", "plan.json")
    assert "3 steps, summed" in out
    expected = make_plan(STEPS.sum(axis=0)[MOE], **SIZES, policy="refined", moe_layer_ids=MOE)
    assert Plan.load("plan.json") == expected
    assert expected != make_plan(
        STEPS[[0, 1, 3]][:, MOE], **SIZES, policy="refined", moe_layer_ids=MOE
    )


def test_steps_that_somebody_knows_to_be_in_order(run, folder):
    np.save("steps.npy", STEPS)
    Path("steps.json").write_text(json.dumps({"logical_count": STEPS.tolist()}))
    run("plan", "steps.json", "--in-order", *OPTIONS, "-o", "a.json")
    run("plan", "steps.npy", *OPTIONS, "-o", "b.json")
    assert Plan.load("a.json") == Plan.load("b.json")


@pytest.mark.same_without_jit  # and minutes as Python
@pytest.mark.parametrize("split", ["best", "certain"])
def test_a_plan_for_split_batches(split, run):
    code, out, _ = run("plan", "loads.npy", *OPTIONS, "--split", split, "-o", "plan.json", "--json")
    assert code == 0
    told = json.loads(out)
    plan = Plan.load("plan.json")
    assert plan == make_plan(LOAD[MOE], split=split, moe_layer_ids=MOE, **SIZES)
    assert told["split"] == split
    assert told["balancedness_of_best_split"] == plan.balancedness(LOAD[MOE], split="best")
    out = run("plan", "loads.npy", *OPTIONS, "--split", split)[1]
    assert re.search(r"^split +0\.\d{4} where batches are split", out, re.MULTILINE)
    code, _, err = run("plan", "absent.npy", *OPTIONS, "--split", split, "--policy", "hybrid")
    assert (code, err.count("\n")) == (2, 1)
    assert f"--policy='refined' with --split='{split}'" in err


def test_a_plan_is_written_for_an_engine(run, folder):
    code, out, _ = run("plan", "loads.npy", *OPTIONS, "-o", "p.json", "--to", "sglang", "--json")
    summary = json.loads(out)
    assert code == 0
    assert summary["start"] == (
        "--init-expert-location p.json --ep-num-redundant-experts 4 --ep-size 8"
    )
    assert "layers that are not planned, and hold the experts in order: 2" in summary["notes"]
    rows = json.loads(Path("p.json").read_text())["physical_to_logical_map"]
    made = make_plan(LOAD[MOE], **SIZES, policy="refined")
    assert [rows[layer] for layer in MOE] == made.phy2log.tolist()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-o", "p.npz", "--to", "sglang"], "unknown file suffix"),
        (["-o", "p.json", "--to", "sglang", "--hidden-layers", "3"], "--hidden-layers=3"),
        (["-o", "p.json", "--to", "numpy"], "no format of plans that are written"),
        (["--format", "sglang"], "not of format 'sglang'"),
        (["--format", "other"], "no format of loads"),
    ],
)
def test_what_cannot_be_read_or_written_is_refused_before_planning(
    options, said, run, folder, monkeypatch
):
    monkeypatch.setattr("eplb_np.cli.plan.make_plan", lambda *_, **__: pytest.fail("planned"))
    code, out, err = run("plan", "loads.npy", *OPTIONS, *options)
    assert (code, out) == (2, "")
    assert said in err
    assert files_of(folder) == ["loads.npy"]


@pytest.mark.parametrize("link", [False, True])
def test_a_file_of_the_folder_that_is_read_is_not_written_over(link, run, folder):
    dumps = folder / "dumps"
    dumps.mkdir()
    for minute in (1500, 1501):
        value = {"logical_count": LOAD.astype(int), "timestamp": f"20261124_{minute}"}
        np.save(dumps / f"x_20261124_{minute}.npy", np.array(value, object))
    output = dumps / "x_20261124_1500.npy"
    before = output.read_bytes()
    if link:
        (folder / "link.npy").symlink_to(output)
    options = [*OPTIONS, "--to", "sglang-jax", "-o"]
    code, _, err = run("plan", "dumps", *options, "link.npy" if link else str(output))
    assert code == 2
    assert "it is in the folder that is read, and would be lost" in err
    assert output.read_bytes() == before
    code, out, _ = run("plan", "dumps", *options, str(dumps / "plan.npy"))
    assert code == 0
    assert "2 steps in order" in out


def test_a_model_whose_layers_nobody_counted_needs_their_number(run, folder):
    np.save("moe.npy", LOAD[MOE])
    options = [*OPTIONS, "-o", "p.json", "--to", "sglang"]
    code, _, err = run("plan", "moe.npy", *options)
    assert code == 2
    assert "give --hidden-layers" in err
    code, _, _ = run("plan", "moe.npy", *options, "--hidden-layers", "4")
    assert code == 0
    assert len(json.loads(Path("p.json").read_text())["physical_to_logical_map"]) == 4


def test_a_global_placement_says_why(run):
    _, out, _ = run("plan", "loads.npy", *OPTIONS, "--groups", "3")
    assert "global placement (2 nodes do not divide 3 groups)" in out


def test_replicas_that_gpus_do_not_divide_are_for_the_refined_policy(run):
    code, out, _ = run("plan", "loads.npy", "--replicas", "19", "--gpus", "8")
    assert code == 0
    assert "19 slots on 8 GPUs, 2 or 3 replicas per GPU" in out
    code, _, err = run("plan", "loads.npy", "--replicas", "19", "--gpus", "8", "--policy", "hybrid")
    assert code == 2
    assert "--policy='refined', which does not need a multiple" in err


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
    "unknown format": (["code.npy"], ["code.npy", "no known format", "sglang"]),
    "NaN": (["nan.npy", *OPTIONS], ["nan.npy", "layer 3, expert 5"]),
    "all dense": (["zero.npy", *OPTIONS], ["zero.npy", "all 4 layers are zero"]),
    "sizes": (["loads.npy", "--replicas", "30"], ["loads.npy", "--replicas=30", "--gpus=32"]),
    "huge": (["loads.npy", "--gpus", "1000000000"], ["--gpus=1000000000", "at most 1048576"]),
    "more GPUs than slots": (
        ["loads.npy", "--replicas", "288", "--gpus", "1000000"],
        ["--replicas=288", "--gpus=1000000", "a slot"],
    ),
    "beyond float32": (["large.npy"], ["large.npy", "layer 3", "2**127"]),
    "steps beyond float64": (["steps.npy"], ["steps.npy", "layer 1", "2**127"]),
    "a key twice": (["twice.json"], ["twice.json", "logical_count", "twice"]),
    "a FIFO": (["fifo.npy"], ["fifo.npy", "a FIFO"]),
    "a folder": (["folder.npy"], ["folder.npy", "a folder", "no known format"]),
    "an escape": (["\x1b[31mred\n.npy"], [r"\x1b[31mred\n.npy: No such file"]),
    "not in any encoding": (["\udcff.npy"], [r"\udcff.npy: No such file"]),
    "the input": (["loads.npy", "-o", "same.json"], ["same.json", "is read, and would be lost"]),
    "a link to the input": (["same.json", "-o", "link.json"], ["link.json", "would be lost"]),
    "output FIFO": (["loads.npy", *OPTIONS, "-o", "fifo.json"], ["fifo.json", "a FIFO"]),
    "output directory": (["loads.npy", "-o", "folder.json"], ["folder.json", "a directory"]),
    "output device": (["loads.npy", "-o", "null.json"], ["null.json", "a device"]),
    "output circle": (["loads.npy", "-o", "circle.json"], ["circle.json", "symbolic links"]),
    "option": (["--replicas", "many"], ["--replicas", "many", "eplb-np plan --help"]),
    "no such option": (["--no-such"], ["--no-such", "eplb-np plan --help"]),
    "policy": (["--policy", "best"], ["--policy", "'best'", "'hybrid'"]),
    "too many files": (["loads.npy", "loads.npy"], ["loads.npy", "unexpected"]),
    "zero": (["loads.npy", "--gpus", "0"], ["--gpus=0", "at least 1"]),
    "output": (["loads.npy", *OPTIONS, "-o", "p.txt"], ["p.txt", ".json, .npz"]),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("json_wanted", [False, True])
def test_bad_input_is_one_line_on_stderr(json_wanted, kind, run, folder):
    args, parts = BAD[kind]
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 damaged")
    (folder / "code.npy").write_text("import numpy\n")
    bad = LOAD.copy()
    bad[3, 5] = np.nan
    np.save("nan.npy", bad)
    np.save("zero.npy", 0 * LOAD)
    np.save("large.npy", np.where(np.arange(4)[:, None] == 3, 1e38, LOAD))
    np.save("steps.npy", np.full((2, *LOAD.shape), 1e308) * (LOAD > 0))
    (folder / "twice.json").write_text('{"logical_count": [[1]], "logical_count": [[2]]}')
    for name in ("folder.npy", "folder.json"):
        (folder / name).mkdir()
    for name in ("fifo.npy", "fifo.json"):
        os.mkfifo(name)
    (folder / "null.json").symlink_to(os.devnull)
    (folder / "circle.json").symlink_to("circle.json")
    (folder / "same.json").write_text(json.dumps({"logical_count": LOAD.tolist()}))
    if kind == "the input":
        (folder / "loads.npy").unlink()
        (folder / "loads.npy").hardlink_to(folder / "same.json")
    (folder / "link.json").symlink_to("same.json")
    before = files_of(folder)
    output = [] if "-o" in args else ["-o", "p.json"]
    content = (folder / "same.json").read_bytes()
    code, out, err = run("plan", *args, *output, *(["--json"] if json_wanted else []))
    assert (code, out) == (2, "")
    assert err.strip().isprintable()
    assert (folder / "same.json").read_bytes() == content
    assert re.fullmatch(r"eplb-np: .*\n", err)
    for part in parts:
        assert part in err
    assert files_of(folder) == before


def test_a_bad_output_fails_before_anything_is_done(run, monkeypatch):
    monkeypatch.setattr(
        "eplb_np.cli.options.read_loads", lambda *_, **__: pytest.fail("loads were read")
    )
    code, _, err = run("plan", "loads.npy", *OPTIONS, "-o", "plan.yaml")
    assert code == 2
    assert "plan.yaml" in err


def test_a_failing_write_leaves_the_old_plan(run, folder, monkeypatch):
    (folder / "p.json").write_text("the old plan")

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    code, out, err = run("plan", "loads.npy", *OPTIONS, "-o", "p.json")
    assert (code, out, err) == (1, "", "eplb-np: p.json: disk full\n")
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
    assert all(f"{code}," in out for code in (0, 1, 2, 130))
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
    result = run_python("-c", WITHOUT.format(module="eplb_np.cli.plan"))
    assert "ModuleNotFoundError" in result.stderr
    assert "pip install" not in result.stderr


@pytest.fixture
def start(folder):
    """Start the command as a process, which may be stopped, or have nowhere to print."""

    def start(*args, stdout=subprocess.PIPE, **env):
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "eplb_np", "plan", *args, *OPTIONS],
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **env},
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.same_without_jit
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_full_disk_behind_the_output_is_one_line(extra, start):
    with Path("/dev/full").open("w") as full:
        process = start("loads.npy", "-o", "p.json", *extra, stdout=full)
        _, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (
        1, "eplb-np: standard output: No space left on device\n",
    )  # fmt: skip
    assert Plan.load("p.json").num_layers == 2


@pytest.mark.same_without_jit
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_closed_pipe_is_silent(extra, start):
    reader, writer = os.pipe()
    os.close(reader)
    process = start("loads.npy", *extra, stdout=writer)
    os.close(writer)
    assert (process.communicate(timeout=TIMEOUT)[1], process.returncode) == ("", 1)


@pytest.mark.same_without_jit
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "C"])
def test_any_encoding_of_the_output_will_do(encoding, start):
    np.save("lädt\u2713.npy", LOAD)
    env = {"PYTHONIOENCODING": encoding}
    if encoding == "C":
        env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = start("lädt\u2713.npy", stdout=subprocess.PIPE, **env)
    process.stdout.reconfigure(errors="replace")
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, "")
    assert "GPU balancedness" in out


@pytest.mark.same_without_jit
@pytest.mark.parametrize("compiled", [False, True])
def test_ctrl_c_at_any_time_is_silent(compiled, start, tmp_path_factory):
    """While importing, while compiling, while planning and while writing."""
    empty = str(tmp_path_factory.mktemp("kernels"))  # in place of both folders that are looked at
    env = {} if compiled else {"NUMBA_CACHE_DIR": empty, "XDG_CACHE_HOME": empty}
    for delay in np.linspace(0.08, 0.8 if compiled else 4, 6):
        process = start("loads.npy", "-o", "p.json", **env)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=TIMEOUT)
        assert err == ""
        assert process.returncode in (0, 130)
        assert {path.name for path in Path().iterdir()} <= {"loads.npy", "p.json"}


STOPPED_INSIDE = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from eplb_np.__main__ import main

class Stops:
    def __del__(self):  # Python can only ignore what is raised here
        os.kill(os.getpid(), signal.SIGINT)

def plan(*args, **options):
    {how}
    print("went on", flush=True)

import eplb_np.cli.plan
eplb_np.cli.plan.make_plan = plan
sys.argv = ["eplb-np", "plan"]
main()
"""


@pytest.mark.same_without_jit
@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGINT)", "Stops()"])
def test_ctrl_c_stops_whatever_runs(how):
    result = run_python("-c", STOPPED_INSIDE.format(how=how))
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "")


AS_NOBODY = """
import contextlib, os, sys
from eplb_np.__main__ import main

def run(*args):
    sys.argv = ["eplb-np", "plan", *args]
    main()

with contextlib.suppress(SystemExit):  # imports what nobody may not be allowed to read
    run("loads.npy", "-o", "first.json", *{options})
with contextlib.suppress(SystemExit):
    run("plan", "absent.npy", *{options})
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
run(*{args}, *{options})
"""


@pytest.mark.same_without_jit
@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["secret.npy"], "secret.npy: Permission denied"),
        (["loads.npy", "-o", "locked/p.json"], "locked/p.json: no right to write to its folder"),
    ],
)
def test_a_missing_right_is_one_line(args, said):
    with tempfile.TemporaryDirectory() as name:  # all parents of which anybody may enter
        folder = Path(name)
        np.save(folder / "loads.npy", LOAD)
        np.save(folder / "secret.npy", LOAD)
        (folder / "secret.npy").chmod(0)
        (folder / "locked").mkdir(mode=0o555)
        folder.chmod(0o755)
        result = run_python("-c", AS_NOBODY.format(args=args, options=OPTIONS), cwd=folder)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == f"eplb-np: {said}"
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 2  # with that of the absent file


def test_the_output_goes_through_links_and_keeps_its_mode(run, folder):
    (folder / "target.json").touch(mode=0o600)
    (folder / "p.json").symlink_to("target.json")
    assert run("plan", "loads.npy", *OPTIONS, "-o", "p.json")[0] == 0
    assert (folder / "p.json").is_symlink()
    assert stat.S_IMODE((folder / "target.json").stat().st_mode) == 0o600
    assert Plan.load("target.json").num_layers == 2


def test_no_command_is_the_help(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert out == run("--help")[1] == run("-h")[1]
    assert "Make a plan from loads" in out
