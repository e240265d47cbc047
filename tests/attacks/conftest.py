"""Lets the attacks import the helpers beside them, however pytest imports test files."""

import sys
from pathlib import Path

if not sys.platform.startswith("linux"):  # they fork, limit processes and read /proc
    collect_ignore_glob = ["test_*.py"]

sys.path.insert(0, str(Path(__file__).parent))
