"""Lets the attacks import the helpers beside them, however pytest imports test files."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
