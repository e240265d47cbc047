"""Kernels as pieces of entries: only the entry is optimised and made into machine code.

Numba makes a library of every function. It optimises the function with all that it calls, makes
machine code and wrappers for Python and C, and then links it into each caller, where it is
optimised and translated again, up to the entry. Our kernels call each other five levels deep and
are called from nowhere else. So here they are only lowered and linked, and the entry does the
rest. That takes two thirds of the time (40 % for the refined policy). And because LLVM sees the
whole before it has unrolled the parts, the code is up to a quarter faster.
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.registry import CPUDispatcher
from numba.core.typed_passes import NativeLowering
from numba.core.types.misc import unliteral

NEEDED = ("_finalize_final_module", "_optimize_final_module", "_finalize_dynamic_globals")
if not all(hasattr(JITCodeLibrary, name) for name in NEEDED):
    raise ImportError("this Numba makes libraries in another way")


class Piece(CPUDispatcher):  # type: ignore[misc]
    """A compiled function that only compiled functions call; in Python it runs as Python."""

    def __init__(self, function: Any, options: dict[str, object]) -> None:
        super().__init__(function, targetoptions=options, pipeline_class=_Compiler)

    def __call__(self, *args: object) -> object:
        return self.py_func(*args)

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Compile once for integers, and not again for each literal that is passed."""
        return super().get_call_template([unliteral(arg) for arg in args], kws)

    def add_overload(self, compiled: Any) -> None:
        """Keep a specialisation for callers, but do not register it for calls from Python."""
        self.overloads[tuple(compiled.signature.args)] = compiled


class _Library(JITCodeLibrary):  # type: ignore[misc]
    """Code that will be linked into that of its callers."""

    def _optimize_final_module(self) -> None:
        """Leave it to the entry."""

    def _finalize_final_module(self) -> None:
        """Do not pass it to the engine, which would make machine code."""
        self._finalize_dynamic_globals()
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):  # type: ignore[misc]
    """Numba's lowering, into such a library."""

    _name = "lowering_of_a_piece"

    def run_pass(self, state: Any) -> bool:
        name = state.func_id.func_qualname
        state.library = _Library(state.targetctx.codegen(), name)
        state.flags.no_compile = True
        super().run_pass(state)
        # Callers look up code by its entry point, which can be any object, and its signature.
        lowered = state.cr._replace(cfunc=state.func_id.func)
        state.targetctx.insert_user_function(lowered.cfunc, lowered.fndesc, [state.library])
        state.cr = lowered
        return True


class _Compiler(CompilerBase):  # type: ignore[misc]
    """Numba's compiler, except for that lowering."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.passes = [
            (_Lowering if step is NativeLowering else step, description)
            for step, description in passes.passes
        ]
        passes.finalize()
        return [passes]
