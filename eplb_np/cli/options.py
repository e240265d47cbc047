"""Options that several commands share, what is read through them, and the sizes that follow."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import click
from click.shell_completion import CompletionItem

from eplb_np import workloads
from eplb_np._arguments import as_size
from eplb_np.cli.errors import one_line
from eplb_np.cli.streams import Input, name_of
from eplb_np.io import FORMATS, RecordedLoads, read_loads
from eplb_np.io.formats import check_format
from eplb_np.io.recorded import Recording, recorded_loads
from eplb_np.plan import Plan
from eplb_np.policies import POLICIES, check_policy
from eplb_np.topology import Topology

SHIPPED = "synthetic, like DeepSeek-V3"
DEFAULT_GPUS = 32
DEFAULT_POLICY = "refined"

F = TypeVar("F", bound=Callable[..., Any])

a_file = click.Path(path_type=Path, readable=False, allow_dash=True)
"""A file or a folder, or ``-``. Whether it can be read is found when it is, in our words."""


def epilog(*examples: str) -> str:
    """Return the end of a command's help: examples, and its exit codes."""
    lines = "\n".join(f"  {example}" for example in examples)
    return f"\b\nExamples:\n{lines}\n\n{EXIT_CODES}"


EXIT_CODES = (
    "Exit codes: 0, done; 1, the output could not be written; 2, bad input or options; 130, "
    "stopped by Ctrl-C. Errors are one line on standard error."
)


# ---------------------------------------------------------------------------------------------
# Loads
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loads:
    """The loads that a command is given, before they are read."""

    path: Path | None
    format: str | None
    in_order: bool | None

    @property
    def name(self) -> str:
        """What to call them."""
        return SHIPPED if self.path is None else name_of(self.path)

    def read(self) -> RecordedLoads:
        """Read them, or make the synthetic ones; errors are those of the command."""
        if self.path is None:
            return shipped_loads()
        with one_line():
            return read_loads(Input(self.path).file, self.format, in_order=self.in_order)


def shipped_loads() -> RecordedLoads:
    """Make loads to plan if none are given; dense layers are zero, as in recordings."""
    counts = workloads.deepseek_v3_load(seed=0)
    return recorded_loads(Recording(counts, in_order=True, every_layer=True))


def loads_options(*, required: bool = True) -> Callable[[F], F]:
    """Give a command LOADS, ``--format`` and ``--in-order/--summed``, as one argument ``loads``."""
    options = (
        click.argument("loads", required=required, type=a_file),
        format_option("reads_loads", "Format of LOADS"),
        in_order_option,
    )

    def add(command: F) -> F:
        def with_loads(
            *args: Any,
            loads: Path | None,
            format_name: str | None,
            in_order: bool | None,
            **others: Any,
        ) -> Any:
            return command(*args, loads=Loads(loads, format_name, in_order), **others)

        return with_options(options, command, with_loads)

    return add


def _formats(ability: str) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Complete the names of the formats that can do something."""
    return lambda context, option, typed: [
        CompletionItem(name, help=row.title)
        for name, row in FORMATS.items()
        if getattr(row, ability) and name.startswith(typed)
    ]


def format_option(ability: str, what: str) -> Callable[[F], F]:
    """Give a command ``--format``, the format of what is read, as ``format_name``."""
    return click.option(
        "--format",
        "format_name",
        metavar="NAME",
        shell_complete=_formats(ability),
        callback=_known_format(ability),
        help=f"{what}; see eplb-np formats.  [default: told by its content]",
    )


def _known_format(ability: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def check(context: click.Context, option: click.Parameter, name: str | None) -> str | None:
        if name is not None:
            try:
                check_format(name, ability)
            except ValueError as error:
                raise click.BadParameter(str(error).removeprefix("format=")) from None
        return name

    return check


in_order_option = click.option(
    "--in-order/--summed",
    default=None,
    help="Whether the steps of LOADS are in order, and forecast from.  [default: as the format is]",
)


# ---------------------------------------------------------------------------------------------
# Sizes
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sizes:
    """The sizes that were given; None where they were not."""

    replicas: int | None = None
    gpus: int | None = None
    nodes: int | None = None
    groups: int | None = None

    @property
    def num_gpus(self) -> int:
        """GPUs, given or by default."""
        return first_given(self.gpus, DEFAULT_GPUS)

    def said(self, topology: Topology) -> str:
        """Say why there are so many slots, if nobody asked for them; else nothing."""
        if self.replicas is not None:
            return ""
        return (
            f"{topology.num_replicas} follow from {topology.num_experts} experts on "
            f"{topology.num_gpus} GPUs: the fewest with spare slots on every GPU (--replicas)"
        )


def sizes_options(command: F) -> F:
    """Give a command ``--replicas --gpus --nodes --groups``, as one argument ``sizes``."""

    def with_sizes(
        *args: Any,
        replicas: int | None,
        gpus: int | None,
        nodes: int | None,
        groups: int | None,
        **others: Any,
    ) -> Any:
        return command(*args, sizes=Sizes(replicas, gpus, nodes, groups), **others)

    return with_options(SIZES, command, with_sizes)


SIZES = (
    click.option(
        "--replicas",
        type=int,
        help="Physical experts (slots) of a layer.  "
        "[default: the fewest with spare slots on every GPU]",
    ),
    click.option("--gpus", type=int, help=f"Number of GPUs.  [default: {DEFAULT_GPUS}]"),
    click.option("--nodes", type=int, help="Nodes; divides the GPUs.  [default: 1]"),
    click.option("--groups", type=int, help="Expert groups; divides the experts.  [default: 1]"),
)


def topology_from(num_experts: int, sizes: Sizes, current: Plan | None = None) -> Topology:
    """Return the deployment that was asked for.

    Sizes that were not given are those of the plan in use, if there is one. Else there are
    floor(experts / GPUs) + 1 slots on each GPU: the fewest that leave spare slots on every one.
    Raises ``ValueError`` if sizes do not fit together.
    """
    if current is not None:
        old = current.topology
        return replace(
            old,
            num_replicas=first_given(sizes.replicas, old.num_replicas),
            num_gpus=first_given(sizes.gpus, old.num_gpus),
            num_nodes=first_given(sizes.nodes, old.num_nodes),
            num_groups=first_given(sizes.groups, old.num_groups),
        )
    gpus = as_size("num_gpus", sizes.num_gpus)
    replicas = first_given(sizes.replicas, (num_experts // gpus + 1) * gpus)
    nodes, groups = first_given(sizes.nodes, 1), first_given(sizes.groups, 1)
    return Topology(num_experts, replicas, gpus, nodes, groups)


def first_given(given: int | None, default: int) -> int:
    """Return a size that was given, or else its default."""
    return default if given is None else given


# ---------------------------------------------------------------------------------------------
# What else several commands have
# ---------------------------------------------------------------------------------------------


def _known_policy(context: click.Context, option: click.Parameter, name: str) -> str:
    """Look the policy up when the command runs: the table may have grown by then."""
    try:
        check_policy(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return name


policy_option = click.option(
    "--policy",
    default=DEFAULT_POLICY,
    show_default=True,
    metavar="NAME",
    help=f"One of {', '.join(POLICIES)}.",
    callback=_known_policy,
    shell_complete=lambda context, option, typed: [p for p in POLICIES if p.startswith(typed)],
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")


def output_option(what: str) -> Callable[[F], F]:
    """Give a command ``-o``, the file to write, as ``output``."""
    return click.option("-o", "--output", type=a_file, help=what)


def to_option(ability: str, what: str, default: str | None = None) -> Callable[[F], F]:
    """Give a command ``--to``, the format to write, as ``output_format``."""
    if default is None:
        otherwise: dict[str, Any] = {"required": True}  # a default of None would be one
    else:
        otherwise = {"default": default, "show_default": True}
    return click.option(
        "--to",
        "output_format",
        metavar="NAME",
        **otherwise,
        shell_complete=_formats(ability),
        callback=_known_format(ability),
        help=what,
    )


hidden_layers_option = click.option(
    "--hidden-layers",
    type=int,
    help="Decoder layers of the model, dense ones too.  [default: as many as LOADS has]",
)


def with_options(
    options: tuple[Callable[[F], F], ...], command: F, adapted: Callable[..., Any]
) -> F:
    """Give a command options that it takes in another form; ``adapted`` brings them into it."""
    wrapped = cast(F, functools.wraps(command)(adapted))
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped
