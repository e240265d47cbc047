"""Serving engines that ask for a plan while they serve: one thin module for each.

None of them imports its engine. `planning` has what they share.
"""
