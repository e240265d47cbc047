"""The Numba machine: decorators, how kernels are compiled and cached, types, arrays, threads."""
