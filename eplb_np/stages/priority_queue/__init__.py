"""The smallest of many keys, after every change of one of them: `cpu.py`, `simd.py`, `cuda.py`."""
