"""The published algorithm, a folder for each stage.

Groups go to nodes, experts get replicas within their node, replicas go to GPUs: ``hierarchy``
composes that from ``replication``, ``packing`` and its ``refinement``, which stand on ``sorting``
and a ``priority_queue``. Each folder has the stage's forms side by side: ``cpu.py`` row by row,
``simd.py`` for many short rows at once, ``cuda.py`` for the threads of a GPU's block. All give the
same bytes. The small decisions that they share are in ``decisions.py``, here and in the folders.

``planner.py`` and ``gpu_planner.py`` are what `eplb_np.policies` names.
"""
