"""The refined policy: the best plan from scratch, by local search.

``planner.py`` shares the layers out to threads. Groups go to nodes first (``groups.py``), and then
``layers.py`` plans each layer node by node. In each node (``node.py``) a first plan is constructed
(``construction.py``) and then improved (``search.py``). All of them work on a ``slot_table.py``.
Where that plan is far from balanced, plans in which a GPU holds an expert twice are searched, too.

The moves, one file each, with what they cost when a plan in use is mended:

==================  ======================================================  =======
File                Move                                                    Fetches
==================  ======================================================  =======
``swap.py``         Two replicas on different GPUs change places.           2
``double_swap.py``  Two replicas of a GPU change places with two of         4
                    another.
``reassign.py``     A redundant slot goes to another expert.                1
``separate.py``     Two replicas of an expert that share a GPU are          2
                    separated by a swap.
==================  ======================================================  =======
"""
