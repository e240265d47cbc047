"""Lets the tests of the pages import the scripts in ``studies``, as these import each other."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "studies"))
