"""The refined policy: the best plan from scratch, by local search.

``planner.py`` shares layers out to threads; ``layers.py`` plans a layer, node by node: groups go to
nodes (``groups.py``), and in each node (``node.py``) a first plan is constructed
(``construction.py``) and then improved (``search.py``). All of them work on a ``slot_table.py``.

The moves, one file each:

==================  ==========================================================================
``swap.py``         two replicas on different GPUs change places
``double_swap.py``  two replicas of one GPU change places with two of another
``reassign.py``     a redundant slot is given to another expert
``separate.py``     two replicas of one expert that share a GPU are separated by a swap
==================  ==========================================================================
"""
