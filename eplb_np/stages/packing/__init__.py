"""Balanced packing: LPT into packs of equal size. The forms: `cpu.py`, `simd.py`, `cuda.py`."""
