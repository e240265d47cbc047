"""Stable sort of loads, heaviest first."""
