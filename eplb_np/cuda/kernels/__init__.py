"""The stages as CUDA kernels: one block for each layer and node.

Written in the part of ``numba.cuda`` that its three implementations share: the target built into
Numba, the ``numba-cuda`` package, and the simulator. So there are no warp shuffles, ballots or
``syncwarp`` here, and no ``min`` and ``max``, which the built-in target cannot compile.

Letters as on the CPU: L layers, E logical experts, P physical experts (replicas, slots), G groups,
N nodes, D GPUs; n = E / N experts, p = P / N replicas and d = D / N GPUs of one node.
"""
