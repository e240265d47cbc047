"""The command in a pseudo-terminal: what it shows there, and Ctrl-C as a terminal sends it."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

from support import PACKAGE, TIMEOUT

CTRL_C = b"\x03"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A process whose standard output and error are a terminal of its own."""

    def __init__(self, *args, cwd, columns=100, term="xterm", **env):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "eplb_np", *args],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), "TERM": term, **env},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            preexec_fn=_own_the_terminal,
        )
        os.close(slave)
        self._shown = b""

    def wait_for(self, pattern):
        """Read until a pattern has been shown, and return its match."""
        end = time.monotonic() + TIMEOUT
        while not (found := re.search(pattern, self.plain)):
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"{pattern!r} was not shown: {self.text!r}")
        return found

    def type(self, keys):
        os.write(self._master, keys)

    def finish(self):
        """Read to the end; return the exit code and all that was shown."""
        end = time.monotonic() + TIMEOUT
        while self._read(end - time.monotonic()):
            pass
        code = self.process.wait(TIMEOUT)
        os.close(self._master)
        return code, self.text

    @property
    def text(self):
        return self._shown.decode(errors="replace")

    @property
    def plain(self):
        """What was shown, without colours and movements of the cursor."""
        return ESCAPES.sub("", self.text).replace("\r\n", "\n")

    def _read(self, seconds):
        if not select.select([self._master], [], [], max(seconds, 0))[0]:
            self.process.kill()
            return False
        try:
            read = os.read(self._master, 1 << 16)
        except OSError:  # nobody has the terminal open any more
            read = b""
        self._shown += read
        return bool(read)


def _own_the_terminal():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a job in the background ignores it
