"""Types of the kernels' arguments, for readers and type checkers: Numba infers its own."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Int: TypeAlias = int | np.int64
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float32]
Doubles: TypeAlias = NDArray[np.float64]
Shorts: TypeAlias = NDArray[np.uint16]
Bools: TypeAlias = NDArray[np.bool_]
