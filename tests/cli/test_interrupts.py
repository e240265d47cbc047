"""Ctrl-C is ours in our own command only: any other process keeps the handler that it had."""

import os

import pytest
from support import PACKAGE, run_python

# A job in the background inherits that Ctrl-C is ignored.
DEFAULT = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
HANDLER = "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"


@pytest.fixture
def folder(tmp_path):
    """Programs of somebody else that import this package."""
    code = f"{DEFAULT}import eplb_np\n{HANDLER}"
    (tmp_path / "eplb-np-server.py").write_text(code)
    (tmp_path / "server").mkdir()
    (tmp_path / "server" / "__init__.py").write_text(code)
    (tmp_path / "server" / "__main__.py").write_text("")
    (tmp_path / "eplb-np").write_text(  # our script's name, but not in the main thread
        f"{DEFAULT}import threading\n"
        "thread = threading.Thread(target=lambda: __import__('eplb_np'))\n"
        f"thread.start()\nthread.join()\n{HANDLER}"
    )
    return tmp_path


@pytest.mark.parametrize(
    "program", [["eplb-np-server.py"], ["-m", "server", "eplb_np"], ["eplb-np"]], ids=str
)
def test_another_program_keeps_its_handler(program, folder):
    path = os.pathsep.join([str(PACKAGE.parent), str(folder)])
    result = run_python(*program, cwd=folder, PYTHONPATH=path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\n", "")


def test_our_command_has_its_own(tmp_path):
    (tmp_path / "eplb-np").write_text(f"{DEFAULT}import eplb_np\n{HANDLER}")
    assert run_python("eplb-np", cwd=tmp_path).stdout == "False\n"


@pytest.mark.parametrize("stopped", [True, False])
def test_what_was_interrupted_half_made_says_nothing(stopped):
    """As objects of LLVM, whose ``__del__`` fails if their ``__init__`` did not end."""
    code = f"""{DEFAULT}
import os
import eplb_np.__main__ as command

class HalfMade:
    def __del__(self):
        raise AttributeError("half made")

try:
    with command._stopped_by_interrupts():
        half_made = HalfMade()
        if {stopped}:
            os.kill(os.getpid(), signal.SIGINT)
except command._Stopped:
    pass
del half_made
"""
    assert ("half made" in run_python("-c", code).stderr) == (not stopped)
