"""The command replaces nothing that it must not, and complains in one line and an exit code."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arena import HARMFUL, attack_python, each, held, outcomes
from command_cases import COMPLAINTS, LOAD, OPTIONS, OUTPUTS
from support import PACKAGE, needs_jit

pytestmark = needs_jit


def named(*acts) -> list[str]:
    return [act.__name__ for act in acts]


@each(named(*OUTPUTS))
def test_an_output_replaces_nothing_that_it_must_not(name) -> None:
    held(outcomes("command_cases")[name], *HARMFUL)


@each(named(*COMPLAINTS))
def test_a_complaint_is_one_line_that_names_the_file(name) -> None:
    held(outcomes("command_cases")[name], *HARMFUL)


@pytest.fixture
def command(tmp_path):
    """Start the command in a process of its own, in a folder with loads."""
    np.save(tmp_path / "loads.npy", LOAD)
    np.save(tmp_path / "lädt.npy", LOAD)

    def start(*args: str, **options) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), **options.pop("env", {})}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "eplb_np", "plan", *args, *OPTIONS],
            cwd=tmp_path, env=env, text=True, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    return start


def test_a_full_disk_behind_stdout_is_one_line(command) -> None:
    with Path("/dev/full").open("w") as full:
        process = command("loads.npy", "-o", "plan.json", stdout=full)
        _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert err.count("\n") == 1, err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_closed_pipe_behind_stdout_is_no_traceback(command) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = command("loads.npy", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    assert err.count("\n") <= 1, err


@pytest.mark.slow
def test_another_encoding_of_stdout_is_no_traceback(command) -> None:
    process = command(
        "lädt.npy", "-o", "plän.json", stdout=subprocess.PIPE, env={"PYTHONIOENCODING": "ascii"}
    )
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "4 MoE layers planned" in out


INTERRUPTED = """
import builtins, os, signal, sys
import eplb_np.__main__
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner may ignore it
sys.argv[:] = ["eplb-np", "plan"]
whole = builtins.__import__

def interrupt(name, *args):
    if name == {module!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return whole(name, *args)

builtins.__import__ = interrupt
eplb_np.__main__.main()
"""


MODULES = ["click", *(pytest.param(m, marks=pytest.mark.slow) for m in ("rich.console", "numba"))]


@pytest.mark.parametrize("module", MODULES)
def test_an_early_interrupt_is_no_traceback(module) -> None:
    result = attack_python(INTERRUPTED.format(module=module))
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") <= 1
