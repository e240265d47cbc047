"""Bounded refinement: a few swaps between the heaviest and the lightest pack."""
