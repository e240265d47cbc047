"""Balanced packing: LPT into packs of equal size."""
