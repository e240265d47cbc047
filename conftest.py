"""Examples in docstrings and in the documentation are tests too."""

from doctest import ELLIPSIS
from importlib.util import find_spec
from typing import Any

import pytest
from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.integration.pytest import SybilItem
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

docstrings = Sybil(
    parsers=[DocTestParser(optionflags=ELLIPSIS)],
    path="eplb_np",
    patterns=["*.py", "**/*.py"],  # the first for modules at the top
    document_types={".py": PythonDocStringDocument},
)
pages = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser()],
    patterns=["README.md", "docs/*.md", "docs/engines/*.md", "docs/reference/*.md"],
)
pytest_collect_file = (docstrings + pages).pytest()


NO_JAX = find_spec("jax") is None

# Examples of one file share their names, and tests of one file its costly fixture.
TOGETHER = ("README.md", "docs/", "eplb_np/", "tests/attacks/", "tests/cuda/test_ptx.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share tests out to processes one by one, but for those that belong together.

    pytest-xdist's own way, groups by marker, fails silently from pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("::")[0] if nodeid.startswith(TOGETHER) else nodeid

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)  # before `-m` is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the pages' examples out of the run without compiled kernels.

    And those of the form for JAX out of every run without JAX.
    """
    for item in items:
        if isinstance(item, SybilItem) and item.path.name == "jax.py":
            item.add_marker(pytest.mark.same_without_jit)
            item.add_marker(pytest.mark.skipif(NO_JAX, reason="JAX is not installed"))
        if isinstance(item, SybilItem) and item.path.suffix == ".md":
            item.add_marker(pytest.mark.same_without_jit)
