"""Stable sort of loads, heaviest first: `cpu.py`, `simd.py`, `cuda.py`."""
