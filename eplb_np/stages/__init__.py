"""The published algorithm, a folder for each stage.

Groups go to nodes, experts get replicas within their node, replicas go to GPUs: ``hierarchy``
composes that from ``replication``, ``packing`` and its ``refinement``, which build on ``sorting``
and a ``priority_queue``. Each folder has the forms of its stage side by side: ``cpu.py`` row by
row, ``simd.py`` for many short rows at once (see ``simd_batch.py``), ``cuda.py`` for the threads
of a GPU's block (see ``cuda_kernels.py``). All forms give the same bytes, and the small decisions
that they share are in ``decisions.py``, here and in the folders.

``planner.py`` and ``gpu_planner.py`` are what `eplb_np.policies` names.
"""
