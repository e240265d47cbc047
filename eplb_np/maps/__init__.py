"""The maps that a plan is made of.

``maps.py`` has the maps and their invariants, ``log2phy.py`` the inverse map,
``homes.py`` the nodes that groups belong to. ``cpu.py`` and
``cuda.py`` have the compiled loops.
"""
