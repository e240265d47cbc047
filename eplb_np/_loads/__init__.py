"""Loads on their way in: checked, and made the one form that kernels take.

``host.py`` is for loads on the host, with ``cpu.py`` to look through them; ``device.py`` for loads
on the GPU or on their way there, with ``cuda.py``.
"""
