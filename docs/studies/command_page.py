"""Runs the commands that a page shows, in a folder of its own, and says what they print.

Run as ``python docs/studies/command_page.py docs/command.md`` to write the outputs anew. Times
differ from run to run, so they are shown as they were measured once, and not compared.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from eplb_np import workloads

ROOT = Path(__file__).parent.parent.parent
BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
TIME = re.compile(r" *\d[\d.]*(?= m?s\b)")  # in tables after more or fewer spaces


def write_loads(folder: Path) -> None:
    """Write the loads of the examples: what ships with the package, and a later workload."""
    counts = workloads.deepseek_v3_load(seed=0)
    np.save(folder / "loads.npy", counts)
    moe = counts.any(axis=1)
    profile = counts[moe] / counts[moe].sum(axis=1, keepdims=True)
    later = np.zeros_like(counts)
    later[moe] = (
        workloads.related_profiles(profile, 2, seed=0)[1] * counts[moe].sum(axis=1)[:, None]
    )
    np.save(folder / "new.npy", later)
    profiles = workloads.related_profiles(profile, 2, seed=0)
    trace = workloads.scenario_trace("drift", profiles, num_windows=16)
    np.save(folder / "windows.npy", trace.load)


def command_in(folder: Path) -> dict[str, str]:
    """Return an environment in which a shell finds the command."""
    script = folder / "eplb-np"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m eplb_np "$@"\n')
    script.chmod(0o755)
    paths = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": paths, "PYTHONPATH": str(ROOT)}


def run_page(page: str) -> str:
    """Return the page with the outputs that its commands have now."""
    with TemporaryDirectory() as scripts, TemporaryDirectory() as name:
        folder = Path(name)
        write_loads(folder)
        env = command_in(Path(scripts))

        def run(block: re.Match[str]) -> str:
            commands = [line for line in block[0].splitlines() if line.startswith("$ ")]
            outputs = (
                subprocess.run(
                    line[2:], shell=True, cwd=folder, env=env, capture_output=True, text=True,
                    timeout=600, check=True,
                ).stdout
                for line in commands
            )  # fmt: skip
            return "".join(f"{line}\n{out}" for line, out in zip(commands, outputs, strict=True))

        return BLOCK.sub(run, page)


def without_times(page: str) -> str:
    """Return a page in which all times are the same."""
    return TIME.sub("0", page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(run_page(path.read_text()))
