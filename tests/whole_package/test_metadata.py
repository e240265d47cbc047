"""What the project's own files say of it: extras, versions, and what is tested, in agreement."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import PACKAGE, TESTS

import eplb_np

pytestmark = pytest.mark.same_without_jit

ROOT = TESTS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = set(PROJECT["optional-dependencies"])
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]

REQUIREMENT = re.compile(r"""(["']?)(?:eplb[-_]np|(?<=\s|'|")\.)\[([a-z0-9_,]+)\](["']?)""")
NAMED = re.compile(r"\bextras?\s+((?:`\w+`(?:,\s+|\s+and\s+)?)+)")


def texts() -> Iterator[tuple[Path, str]]:
    for path in [*PAGES, ROOT / "Makefile", *PACKAGE.rglob("*.py"), *TESTS.rglob("*.sh")]:
        yield path, path.read_text()


def test_extras_are_quoted_wherever_they_are_installed():
    """Shells such as zsh take brackets without quotes for a pattern of file names."""
    found = [(path, match) for path, text in texts() for match in REQUIREMENT.finditer(text)]
    assert {path.name for path, _ in found} >= {"Makefile", "device.py", "cluster.py"}
    for path, match in found:
        assert match[1] and match[1] == match[3], f"{path}: {match[0]}"  # noqa: PT018
        assert set(match[2].split(",")) <= EXTRAS, f"{path}: {match[0]}"


def test_extras_that_pages_name_exist():
    named = {
        (name, path.name)
        for path, text in texts()
        for names in NAMED.findall(text)
        for name in re.findall(r"\w+", names.replace(" and ", " "))
    }
    assert len(named) > 5
    assert {(name, page) for name, page in named if name not in EXTRAS} == set()


def test_every_extra_for_users_is_in_the_pages():
    pages = "".join(path.read_text() for path in PAGES)
    for extra in EXTRAS - {"test", "docs", "bench"}:
        assert f"[{extra}]" in pages, f"pip install 'eplb-np[{extra}]' is in no page"


def test_the_citation_is_of_this_version():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == eplb_np.__name__
    assert citation["version"] == eplb_np.__version__
    assert citation["license"] == PROJECT["license"]
    assert set(citation["keywords"]) == set(PROJECT["keywords"])
    assert citation["message"]
    assert citation["authors"]


def test_the_changelog_has_this_version():
    assert f"## [{eplb_np.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_python_of_the_classifiers_is_said_to_be_tested():
    pythons = [
        line.rpartition(" ")[2]
        for line in PROJECT["classifiers"]
        if line.startswith("Programming Language :: Python :: 3.")
    ]
    assert PROJECT["requires-python"] == f">={pythons[0]}"
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (table,) = re.findall(r"^### What is tested where\n+((?:\|.*\n)+)", page, re.MULTILINE)
    first_cells = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert set(re.findall(r"3\.\d+", " ".join(first_cells))) == set(pythons)


def test_the_oldest_dependencies_that_are_allowed_are_the_oldest_tested():
    lines = (TESTS / "lowest.txt").read_text().splitlines()
    pins = [line.partition(";")[0].strip() for line in lines if not line.startswith("#")]
    for dependency in PROJECT["dependencies"]:
        name, _, oldest = dependency.partition(">=")
        tested = [pin for pin in pins if pin.startswith(f"{name}==")]
        assert tested[0] == f"{name}=={oldest}.*"
