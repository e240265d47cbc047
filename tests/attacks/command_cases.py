"""The command against files that it must not replace, must not wait for, or cannot read."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from arena import Problems

import eplb_np
import eplb_np.cli  # now: who has given root's rights up may not be able to read it
from eplb_np import Plan, Rebalancer, Topology
from eplb_np.__main__ import main

LOAD = np.random.default_rng(8).integers(1, 100, (4, 12)).astype(float)
OPTIONS = ("--replicas", "16", "--gpus", "8", "--nodes", "2", "--groups", "4")
NOBODY = 65534


def plan(*args: str) -> tuple[int, str, str]:
    """Run ``eplb-np plan`` in this process; return exit code, stdout and stderr."""
    return run("plan", *args)


def run(*args: str) -> tuple[int, str, str]:
    """Run ``eplb-np`` in this process; return exit code, stdout and stderr."""
    sys.argv = ["eplb-np", *args]
    code: object = "no exit"
    said = [Path(tempfile.mkdtemp()) / name for name in ("out", "err")]
    for descriptor, path in enumerate(said, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, descriptor)
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    out, err = (path.read_text() for path in said)
    assert isinstance(code, int), code
    return code, out, err


def refused(*args: str, names: str, status: int = 2) -> None:
    """Assert that the command says in one line of plain text what is wrong with which file."""
    code, out, err = plan(*args, *OPTIONS)
    assert code == status, (code, err)
    assert out == ""
    assert err.count("\n") == 1, err
    assert names in err, err
    assert err.strip().isprintable(), err


def written(*args: str) -> None:
    code, _, err = plan(*args, *OPTIONS)
    assert (code, err) == (0, "")


def output_is_the_input() -> None:
    before = Path("loads.json").read_bytes()
    refused("loads.json", "-o", "loads.json", names="loads.json")
    assert Path("loads.json").read_bytes() == before


def output_is_the_input_by_another_path() -> None:
    before = Path("loads.json").read_bytes()
    refused("loads.json", "-o", f"../{Path.cwd().name}/loads.json", names="loads.json")
    assert Path("loads.json").read_bytes() == before


def output_is_a_link_to_the_input() -> None:
    before = Path("loads.json").read_bytes()
    Path("link.json").symlink_to("loads.json")
    refused("loads.json", "-o", "link.json", names="link.json")
    assert Path("loads.json").read_bytes() == before


def output_is_a_hard_link_to_the_input() -> None:
    Path("hard.json").hardlink_to("loads.json")
    before = Path("loads.json").read_bytes()
    plan("loads.json", "-o", "hard.json", *OPTIONS)
    assert Path("loads.json").read_bytes() == before


def other_outputs_are_the_input() -> None:
    """Of commands that write a file of another kind than they read."""
    written("loads.json", "-o", "plan.json")
    for name in ("plan.json", "loads.json"):
        Path("link.png").unlink(missing_ok=True)
        Path("link.png").symlink_to(name)
        before = Path(name).read_bytes()
        for args in (
            ("convert", name, name, "--to", "sglang"),
            ("convert", name, "link.png", "--to", "sglang"),
            ("show", "plan.json", "loads.json", "-o", "link.png"),
            ("diff", "plan.json", "plan.json", "loads.json", "-o", "link.png"),
        ):
            code, out, err = run(*args)
            assert (code, out, err.count("\n")) == (2, "", 1), (args, err)
            assert Path(name).read_bytes() == before


def output_is_a_link() -> None:
    Path("elsewhere").mkdir()
    Path("plan.json").symlink_to("elsewhere/target.json")
    written("loads.json", "-o", "plan.json")
    assert Path("plan.json").is_symlink()
    assert Plan.load("elsewhere/target.json").num_layers == 4


def output_is_a_fifo() -> None:
    os.mkfifo("plan.json")
    refused("loads.json", "-o", "plan.json", names="plan.json")
    assert stat.S_ISFIFO(Path("plan.json").stat().st_mode)


def output_is_a_device() -> None:
    Path("plan.json").symlink_to("/dev/null")
    refused("loads.json", "-o", "plan.json", names="plan.json")
    assert Path("plan.json").is_symlink()
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def output_is_a_folder() -> None:
    Path("plan.json").mkdir()
    refused("loads.json", "-o", "plan.json", names="plan.json")


def output_keeps_its_mode() -> None:
    for mode in (0o600, 0o640):
        Path("plan.json").touch()
        Path("plan.json").chmod(mode)
        written("loads.json", "-o", "plan.json")
        assert Path("plan.json").stat().st_mode & 0o777 == mode


def saves_write_through_links_and_keep_modes() -> None:
    made = eplb_np.in_order_plan(2, Topology(12, 16, 8))
    rebalancer = Rebalancer(made.topology, current=made)
    for name, save in {
        "plan.npz": made.save,
        "state.npz": rebalancer.save,
    }.items():
        target = Path(f"target_{name}")
        target.touch(mode=0o600)
        Path(name).symlink_to(target)
        save(name)
        assert Path(name).is_symlink()
        assert target.stat().st_size > 0
        assert target.stat().st_mode & 0o777 == 0o600


def saves_refuse_what_is_no_file() -> None:
    made = eplb_np.in_order_plan(1, Topology(12, 16, 8))
    os.mkfifo("plan.npz")
    with contextlib.suppress(ValueError, OSError):
        made.save("plan.npz")
    assert stat.S_ISFIFO(Path("plan.npz").stat().st_mode)


def as_nobody() -> None:
    """Go on without the rights of root, who may read and write everything."""
    written("loads.json", "-o", "first.json")  # imports what may not be readable any more
    refused("absent.json", names="absent.json")
    Path().chmod(0o755)
    if os.geteuid() == 0:
        os.setresuid(NOBODY, NOBODY, NOBODY)


def input_may_not_be_read() -> None:
    secret = Path("secret.json")
    secret.write_bytes(Path("loads.json").read_bytes())
    secret.chmod(0)
    as_nobody()
    refused("secret.json", names="secret.json")


def folder_may_not_be_written() -> None:
    Path("locked").mkdir()
    Path("locked").chmod(0o555)
    as_nobody()
    refused("loads.json", "-o", "locked/plan.json", names="locked/plan.json")


def disk_is_full() -> None:
    """A limit of files' sizes stands in for the disk; the error names the file asked for."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    Path("plan.json").write_text("the old file")
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
    refused("loads.json", "-o", "plan.json", names="plan.json", status=1)
    assert Path("plan.json").read_text() == "the old file"
    assert sorted(path.name for path in Path().iterdir()) == ["loads.json", "plan.json"]


def keys_come_twice() -> None:
    values = LOAD.tolist()
    Path("twice.json").write_text(f'{{"logical_count": {values}, "logical_count": {values}}}')
    refused("twice.json", names="twice.json")


def steps_sum_up_to_infinity() -> None:
    Path("much.json").write_text(json.dumps({"logical_count": [[[1e308, 1.0]]] * 2}))
    refused("much.json", names="much.json")
    np.save("much.npy", np.full((2, 1, 12), 1e308))
    refused("much.npy", names="much.npy")


def loads_do_not_fit_the_sizes() -> None:
    Path("few.json").write_text(json.dumps({"logical_count": [[1.0, 2.0, 3.0]]}))
    refused("few.json", names="few.json")


def name_has_an_escape_character() -> None:
    name = "\x1b[31mred.json"
    Path(name).write_text("{}")
    refused(name, names="red.json")
    Path(name).write_bytes(Path("loads.json").read_bytes())
    code, out, err = plan(name, *OPTIONS, "-o", "\x1b[32mplan.json")
    assert code in (0, 2)
    assert "\x1b" not in out + err


def name_has_several_lines() -> None:
    refused("two\nlines.json", names="lines.json")


def hostile_plans_are_refused_by_every_command() -> None:
    written("loads.json", "-o", "plan.json")
    texts = {
        "cut": Path("plan.json").read_text()[:500],
        "nested": "[" * 100_000,
        "map": '{"physical_to_logical_map": [[0, 1, 2, -1]]}',
        "huge": '{"physical_to_logical_map": [[0, 99999999999]]}',
        "empty": "",
        "escape": '{"\\u001b[31m": 1}',
    }
    for name, text in texts.items():
        file = f"{name}.json"
        Path(file).write_text(text)
        for args in (
            ("show", file, "--gpus", "2"),
            ("diff", file, "plan.json"),
            ("diff", "plan.json", file, "loads.json"),
            ("convert", file, "out.json", "--to", "vllm-ascend", "--gpus", "2"),
            ("plan", "loads.json", "--current", file),
        ):
            code, out, err = run(*args)
            assert (code, out, err.count("\n")) == (2, "", 1), (args, err)
            assert file in err, (args, err)
            assert err.strip().isprintable(), err
        assert not Path("out.json").exists()


def sizes_are_huge() -> None:
    for option in ("--gpus", "--replicas", "--nodes", "--groups"):
        code, _, err = plan("loads.json", option, "1000000000", "-o", "plan.json")
        assert code == 2
        assert err.count("\n") == 1, err


OUTPUTS: tuple[Callable[[], None], ...] = (
    output_is_the_input, output_is_the_input_by_another_path, output_is_a_link_to_the_input,
    other_outputs_are_the_input,
    output_is_a_hard_link_to_the_input, output_is_a_link, output_is_a_fifo, output_is_a_device,
    output_is_a_folder, output_keeps_its_mode, saves_write_through_links_and_keep_modes,
    saves_refuse_what_is_no_file,
)  # fmt: skip
COMPLAINTS: tuple[Callable[[], None], ...] = (
    input_may_not_be_read, folder_may_not_be_written, disk_is_full, keys_come_twice,
    steps_sum_up_to_infinity, loads_do_not_fit_the_sizes, name_has_an_escape_character,
    name_has_several_lines, sizes_are_huge, hostile_plans_are_refused_by_every_command,
)  # fmt: skip


def attack(act: Callable[[], None]) -> Problems:
    """Act in a new folder with loads in it."""
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    Path("loads.json").write_text(json.dumps({"logical_count": LOAD.tolist()}))
    act()
    return {}


def cases(long: bool) -> dict[str, Callable[[], Problems]]:
    """Everything that is tried with the command in one process."""
    eplb_np.warmup(["refined"])
    return {act.__name__: lambda act=act: attack(act) for act in (*OUTPUTS, *COMPLAINTS)}
