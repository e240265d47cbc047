"""Settings of the whole suite."""

from hypothesis import settings
from support import JIT

# The same examples on every run: a failure in continuous integration is a failure at home. No
# deadline, as the first example may compile.
settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, max_examples=300 if JIT else 40
)
settings.load_profile("suite")
