"""Loads on their way in: checked, and converted to the one form that kernels take.

``host.py`` takes loads on the host and checks them by the kernel in ``cpu.py``. ``device.py`` takes
loads on the GPU, or on their way there, and checks and casts them by the kernels in ``cuda.py``.
"""
