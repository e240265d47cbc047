"""The CUDA machine: device and errors, arrays, launches, and what the threads of a block share.

Kernels stand beside their CPU twins in the rooms of what they compute. They are written in the part
of ``numba.cuda`` that its three implementations share: the target built into Numba, the
``numba-cuda`` package, and the simulator. So there are no warp shuffles, ballots or ``syncwarp``,
and no ``min`` and ``max``, which the built-in target cannot compile.
"""
