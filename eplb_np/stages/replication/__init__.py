"""Replica allocation: how many replicas each logical expert gets.

The forms: `cpu.py`, `simd.py`, `cuda.py`.
"""
