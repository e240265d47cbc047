"""Examples in docstrings and in the documentation are tests too."""

from doctest import ELLIPSIS

from sybil import Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser
from sybil.parsers.rest import DocTestParser

docstrings = Sybil(
    parsers=[DocTestParser(optionflags=ELLIPSIS)],
    path="eplb_np",
    pattern="**/*.py",
    document_types={".py": PythonDocStringDocument},
)
pages = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=ELLIPSIS), SkipParser()],
    patterns=["README.md", "docs/*.md"],
)
pytest_collect_file = (docstrings + pages).pytest()
