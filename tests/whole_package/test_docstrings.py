"""Docstrings say what the signatures say, in numpydoc's form, and show it by an example."""

import inspect
import re
from functools import cached_property
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import pytest
from numpydoc.validate import validate
from support import PACKAGE, engine_modules

import eplb_np
import eplb_np.kernels

# Not asked for by numpydoc's own rules: examples and sections of errors (see below), cross
# references and long summaries everywhere, a line break before the summary, and the infinitive
# (numpydoc takes every first word that ends in s for a verb).
NOT_ASKED_FOR = {"EX01", "SA01", "ES01", "GL01", "SS05"}

ROOMS = ("comparison", "cuda", "io", "pictures", "replay", "sweeps", "workloads")

# Patterns of names after "eplb_np.", and why they are excused.
RESULTS = (  # the examples of what makes them show them, and they check nothing
    r"(Move|Moves|PlanSummary|Proposal)",
    r"comparison\.(Comparison|ComparedPlan|ComparedReplay)",
    r"io\.(Format|RecordedLoads|WrittenLoads|WrittenPlan)",
    r"replay\.(Replay|ReplayedWindow)",
    r"sweeps\.(Case|Curve|Grid|Sweep|SweptCase)",
    r"cuda\.DeviceError",
)
NO_EXAMPLE = (
    *RESULTS,
    r"engines\.\w+\.(install|uninstall|plugin|plug_in)",  # into engines that are not here: see docs
    r"engines\.vllm\.EplbPolicy",  # its one method has an example
    r".*\.to_dataframe",  # needs pandas: docs/notebooks.md has one
    r"io\.Format\.\w+",  # what `eplb_np.io` asks its own rows
)
NO_ERRORS = (
    *RESULTS,
    r"kernels\.\w+",  # they check nothing, as they say
    r"dispatch\.jax\.assign",  # traced code cannot raise errors
    r"io\.Format\.\w+",
)


def public_names():
    rooms = (getattr(eplb_np, name) for name in ROOMS)
    modules = [eplb_np, *rooms, *engine_modules(), eplb_np.kernels]
    if find_spec("jax") is not None:
        from eplb_np.dispatch import jax

        modules.append(jax)
    for module in modules:
        for name in getattr(module, "__all__", ("assign", "quotas", "tables")):
            public = getattr(module, name)
            if not callable(public) or not (inspect.isclass(public) or inspect.getdoc(public)):
                continue
            path = f"{module.__name__}.{name}"
            yield path, public
            if inspect.isclass(public):
                yield from ((f"{path}.{name}", member) for name, member in public_members(public))


def public_members(cls):
    kinds = (property, cached_property, classmethod, staticmethod)
    for name, member in vars(cls).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds)):
            yield name, member


def is_excused(path, excuses):
    return any(re.fullmatch(rf"eplb_np\.{name}", path) for name in excuses)


def sections(public):
    return re.findall(r"^([A-Z][a-z ]+)\n-{4,}$", inspect.getdoc(public) or "", re.MULTILINE)


PUBLIC = dict(public_names())
CALLED = {
    path: member.__func__ if isinstance(member, classmethod | staticmethod) else member
    for path, member in PUBLIC.items()
    if not isinstance(member, property | cached_property)
}


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_is_complete(name):
    errors = [error for error in validate(name)["errors"] if error[0] not in NOT_ASKED_FOR]
    assert not errors


@pytest.mark.parametrize("name", CALLED)
def test_docstring_has_an_example(name):
    assert ("Examples" in sections(CALLED[name])) != is_excused(name, NO_EXAMPLE)


@pytest.mark.parametrize("name", CALLED)
def test_docstring_says_which_errors_there_are(name):
    """Of all that take something: each of them checks it."""
    public = CALLED[name]
    if is_excused(name, NO_ERRORS):
        return
    takes = inspect.signature(public).parameters.keys() - {"self", "cls"}
    assert not takes or "Raises" in sections(public)


def test_examples_of_every_module_are_run():
    """By ``conftest.py`` at the root: a pattern of its once left out modules at the top."""
    spec = spec_from_file_location("conftest_at_root", PACKAGE.parent / "conftest.py")
    if spec is None or not (PACKAGE.parent / "conftest.py").exists():
        pytest.skip("the package is installed without the root of its repository")
    root = module_from_spec(spec)
    spec.loader.exec_module(root)
    with_examples = [path for path in PACKAGE.rglob("*.py") if ">>> " in path.read_text()]
    assert len(with_examples) > 30
    assert all(root.docstrings.should_parse(path) for path in with_examples)
