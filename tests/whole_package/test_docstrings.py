"""Docstrings say what the signatures say, in numpydoc's form."""

import inspect
from functools import cached_property

import pytest
from numpydoc.validate import validate
from support import engine_modules

import eplb_np

# Not asked for: examples, cross references and long summaries everywhere, a line break before the
# summary, and the infinitive (numpydoc takes every first word that ends in s for a verb).
NOT_ASKED_FOR = {"EX01", "SA01", "ES01", "GL01", "SS05"}


def public_names():
    names = ("comparison", "cuda", "io", "pictures", "replay", "sweeps", "workloads")
    rooms = (getattr(eplb_np, name) for name in names)
    for module in (eplb_np, *rooms, *engine_modules()):
        for name in module.__all__:
            public = getattr(module, name)
            if not (inspect.isclass(public) or inspect.isfunction(public)):
                continue
            path = f"{module.__name__}.{name}"
            yield path
            if inspect.isclass(public):
                yield from (f"{path}.{member}" for member in public_members(public))


def public_members(cls):
    kinds = (property, cached_property, classmethod, staticmethod)
    for name, member in vars(cls).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, kinds)):
            yield name


@pytest.mark.parametrize("name", list(public_names()))
def test_docstring_is_complete(name):
    errors = [error for error in validate(name)["errors"] if error[0] not in NOT_ASKED_FOR]
    assert not errors
