"""The whole plan of a layer: groups to nodes, replicas within nodes, replicas to GPUs.

The forms: `cpu.py`, `simd.py`, `cuda.py`. What the first two share is in `nodes.py`.
"""
