"""A folder with loads and plans in it, and the command run there in this process."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from plans import separate_plan

from eplb_np import Topology, in_order_plan
from eplb_np.__main__ import main
from eplb_np.plan import Plan

MOE = (1, 3)


@pytest.fixture
def made():
    """Loads of a model with dense layers 0 and 2, and plans for them: old, then new."""
    load = np.random.default_rng(8).integers(1, 100, (4, 12)).astype(float)
    load[[0, 2]] = 0
    topology = Topology(12, 16, num_gpus=8, num_nodes=2, num_groups=4)
    start = in_order_plan(2, topology)
    old = Plan(start.phy2log, start.phyrank, topology, "in_order", MOE)
    new = separate_plan(load[list(MOE)], topology, MOE)  # some engines refuse duplicates
    return SimpleNamespace(load=load, rows=load[list(MOE)], ids=MOE, old=old, new=new)


@pytest.fixture
def files(made, tmp_path, monkeypatch):
    """The current folder, with ``loads.npy``, ``old.json`` and ``new.json``."""
    np.save(tmp_path / "loads.npy", made.load)
    made.old.save(tmp_path / "old.json")
    made.new.save(tmp_path / "new.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(files, capfdbinary, monkeypatch):
    """Run the command in this process; return exit code, standard output and standard error."""

    def command(*args, given=b""):
        monkeypatch.setattr("sys.argv", ["eplb-np", *args])
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capfdbinary.readouterr()
        return stop.value.code, out.decode(), err.decode()

    return command


@pytest.fixture
def run(capsys, monkeypatch):
    """Run the command in this process; return exit code, standard output and standard error."""

    def run(*args):
        monkeypatch.setattr("sys.argv", ["eplb-np", *args])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run
