"""Mending a plan in use: few moves, each of which pays.

``limits.py`` is what users set. ``planner.py`` finds the price at which the moves fit the limits,
and ``layers.py`` mends layer by layer at that price: lost experts are placed again (``repair.py``),
groups swap nodes (``group_swaps.py``), replicas move off the slowest GPU (``descent.py``), and
where that does not get far enough, a layer is planned from scratch and relabelled so that much can
stay (``replanning.py``, ``assignment.py``). Gains are measured by a ``soft_maximum.py`` of the GPU
times, and every fetch is charged to a ``budget.py``.
"""
