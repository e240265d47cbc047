"""Refinement: a bounded number of swaps between the heaviest and the lightest pack of a packing.

The forms: `cpu.py`, `simd.py`, `cuda.py`.
"""
