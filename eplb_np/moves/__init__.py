"""From one plan to another: what must be fetched, from where, and in which order.

``fetches.py`` says what counts as a fetch, ``ordering.py`` finds the moves, and ``moves.py`` has
what users get.
"""

from eplb_np.moves.moves import Move, Moves

__all__ = ["Move", "Moves"]
