"""The CUDA machine: device and errors, arrays, launches, and what the threads of a block share.

Kernels are next to their CPU twins, in the folders of what they compute. They use only the part of
``numba.cuda`` that its three implementations have in common: the target built into Numba, the
``numba-cuda`` package, and the simulator. So there are no warp shuffles, ballots or ``syncwarp``,
and no ``min`` and ``max``, which the built-in target cannot compile.
"""
