"""Placing replicas so that the best split of the loads to come has room.

Which replicas share a GPU decides how far a split can even out the GPUs. The search changes a
plan so that the mean of the best split's longest GPU time, over loads drawn around a forecast, is
as small as it gets. One file for each part:

=============  ====================================================================
``generator``  random integers, the same on every machine
``samples``    loads drawn around one or several windows
``layer``      the replicas of a layer while they are moved, and their even split
``flows``      the best split of every drawn load, repaired after each move
``cuts``       sets of GPUs that bound the time from below, so that few moves are solved
``moves``      which move to try next
``parts``      another start, where some GPUs cannot be connected
``search``     hill climbing over moves
``layers``     one layer after another
``planner``    all layers, shared out to threads
=============  ====================================================================
"""
