"""Pictures are drawn where Matplotlib is."""

import pytest


@pytest.fixture(autouse=True)
def _matplotlib() -> None:
    pytest.importorskip("matplotlib", reason="Matplotlib is not installed")
