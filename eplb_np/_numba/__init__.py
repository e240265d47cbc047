"""The Numba machine: decorators, compiling and caching, types, arrays, indices, threads."""
