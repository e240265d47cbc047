"""From one plan to another: what must be fetched, from where, and in which order."""

from eplb_np.moves.moves import Move, Moves

__all__ = ["Move", "Moves"]
