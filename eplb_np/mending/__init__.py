"""Mending a plan in use: few moves, each of which pays.

``limits.py`` holds what users may limit. ``planner.py`` finds the price at which the moves fit the
limits, and ``layers.py`` mends layer by layer at that price (a layer: ``layer_plan.py``, one node
of it: ``node.py``):

==================  =======================================================================
File                Step
==================  =======================================================================
``repair.py``       Lost experts are placed, empty slots filled, duplicates separated.
``regrouping.py``   Groups go back to their nodes, within the limits, if they are not whole.
``group_swaps.py``  Whole groups swap nodes.
``descent.py``      Replicas move off the slowest GPU.
``replanning.py``   If that does not get far enough, the node is planned from scratch, and
                    its GPUs are renumbered (``assignment.py``) so that much can stay.
==================  =======================================================================

A ``soft_maximum.py`` of the GPU times measures what a move gains, and every fetch is charged to a
``budget.py``.
"""
