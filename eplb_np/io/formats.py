"""`FORMATS`: every kind of file of loads and plans, one row each, and how a file finds its row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from eplb_np._arguments import is_one_of, one_line
from eplb_np.io.contents import Contents


class Format(NamedTuple):
    """What there is to know about a format.

    Parameters
    ----------
    title : str
        Who writes or reads such files.
    holds : str
        What they look like.
    module : str
        Name of the module within `eplb_np.io`.
    reads_loads, reads_plans : bool
        Whether `read_loads` and `read_plan` read them.
    writes_plans, writes_loads : bool
        Whether `write_plan` and `write_loads` write them.
    recorded_by : str
        How such a file comes about, in one line.

    Notes
    -----
    The module of a format has ``recognise(contents) -> bool``, and of these functions the ones
    that the row names: ``read_loads(contents, asked) -> Recording``, ``read_plan(contents) ->
    Placement``, ``write_plan(placement, path) -> str`` beside ``CONSUMER``, ``write_loads(rows,
    path) -> str``. If both loads and plans are read, it also has ``holds_plan(contents) -> bool``.
    It is loaded when it is needed.
    """

    title: str
    holds: str
    module: str
    reads_loads: bool = False
    reads_plans: bool = False
    writes_plans: bool = False
    writes_loads: bool = False
    recorded_by: str = ""

    @property
    def reads_any(self) -> bool:
        """Whether `read_loads` or `read_plan` reads them."""
        return self.reads_loads or self.reads_plans

    @property
    def writes_any(self) -> bool:
        """Whether `write_loads` or `write_plan` writes them."""
        return self.writes_loads or self.writes_plans

    def member(self, name: str) -> Any:
        """Import the format's module, and return one of its members.

        Parameters
        ----------
        name : str
            What the module calls it.

        Returns
        -------
        object
            A function, or ``CONSUMER``.
        """
        return getattr(import_module(f"eplb_np.io.{self.module}"), name)

    def fits(self, contents: Contents, ability: str) -> bool:
        """Tell whether contents are of this format, where they are to be used in some way.

        Parameters
        ----------
        contents : Contents
            An open file or folder.
        ability : str
            Name of the field that says what the contents are for, such as ``"reads_plans"``.

        Returns
        -------
        bool
            Whether the format may be theirs.
        """
        module = import_module(f"eplb_np.io.{self.module}")
        recognise: Callable[[Contents], bool] = module.recognise
        if ability == "reads_plans":
            recognise = getattr(module, "recognise_plan", recognise)
        return recognise(contents)

    def is_plan(self, contents: Contents) -> bool:
        """Tell whether contents of this format are a plan; what holds loads too is one.

        Parameters
        ----------
        contents : Contents
            An open file or folder.

        Returns
        -------
        bool
            Whether `read_plan` is to read them.
        """
        if not self.reads_plans or not self.fits(contents, "reads_plans"):
            return False
        holds_plan: Callable[[Contents], bool] = (
            self.member("holds_plan") if self.reads_loads else lambda _: True
        )
        return holds_plan(contents)


FORMATS: Mapping[str, Format] = MappingProxyType({
    "eplb_np": Format(
        "eplb_np", "a plan as Plan.save writes it: .json or .npz", "own",
        reads_plans=True, writes_plans=True,
        recorded_by="eplb-np plan LOADS -o plan.json, or plan.save(path) in Python",
    ),
    "sglang": Format(
        "SGLang", "a JSON object with logical_count or physical_to_logical_map, or a .pt dump of "
        "its recorder, or a folder of them", "sglang",
        reads_loads=True, reads_plans=True, writes_plans=True, writes_loads=True,
        recorded_by="serve with --expert-distribution-recorder-mode stat "
        "--expert-distribution-recorder-buffer-size -1; POST to "
        "/start_expert_distribution_record, later to /stop_expert_distribution_record "
        "and /dump_expert_distribution_record",
    ),
    "tensorrt-llm": Format(
        "TensorRT-LLM", "a folder of its expert statistics, meta_info.json and "
        "rank<r>.safetensors, or YAML with initial_global_assignments", "tensorrt_llm",
        reads_loads=True, reads_plans=True, writes_plans=True,
        recorded_by="export EXPERT_STATISTIC_ITER_RANGE=100-200 "
        "EXPERT_STATISTIC_PATH=expert_statistic, then serve",
    ),
    "sglang-jax": Format(
        "sglang-jax", "an .npy file of a dict with logical_count, or a folder of them; a plan is "
        "an .npy array of integers [layers, slots], or JSON with physical_to_logical_map",
        "sglang_jax",
        reads_loads=True, reads_plans=True, writes_plans=True,
        recorded_by="serve with --enable-expert-distribution-recorder "
        "--expert-distribution-recorder-buffer-size 100 "
        "--expert-distribution-recorder-output-file loads.npy",
    ),
    "vllm-ascend": Format(
        "vLLM Ascend", "an expert map: a JSON object with moe_layer_count and layer_list",
        "vllm_ascend", reads_plans=True, writes_plans=True,
        recorded_by="it records no loads; with DYNAMIC_EPLB or EXPERT_MAP_RECORD set, it writes "
        "the placement to expert_map_record_path of its eplb_config",
    ),
    "fastdeploy": Format(
        "FastDeploy", "rearrange-experts.json: a JSON object with tokens_per_expert_stats_list and "
        "ep_rank_to_expert_id_list", "fastdeploy", reads_loads=True, reads_plans=True,
        recorded_by="it writes the file while it balances, into redundant_expert_meta in the "
        "temporary folder",
    ),
    "megatron": Format(
        "Megatron-LM", "a folder tokens_per_expert of rank<r>.jsonl, or one of the files",
        "megatron",
        reads_loads=True,
        recorded_by="train with --save-tokens-per-expert-interval N: the files are in "
        "<save>/tokens_per_expert",
    ),
    "megatron-trace": Format(
        "Megatron-LM's router trace", "a folder of router_trace_rank<r>.jsonl, or one of the files",
        "megatron_trace",
        reads_loads=True,
        recorded_by="train with --moe-routing-trace-path FOLDER",
    ),
    "numpy": Format(
        "NumPy", "an array [layers, experts] or [steps, layers, experts]: .npy, or .npz with "
        "logical_count or a single array", "numpy_arrays",
        reads_loads=True, writes_loads=True,
        recorded_by='numpy.save("loads.npy", counts)',
    ),
    "json": Format(
        "JSON", "a list [layers, experts] or [steps, layers, experts]", "json_lists",
        reads_loads=True,
        recorded_by="json.dump(counts.tolist(), file)",
    ),
    "lmdeploy": Format(
        "LMDeploy", "a JSON list [layers, experts] with a row for every decoder layer", "lmdeploy",
        reads_loads=True, writes_loads=True,
        recorded_by="it records no loads: eplb-np convert LOADS statistics.json --to lmdeploy",
    ),
    "text": Format(
        "text", "a table of CSV or TSV: a line for each layer, or one for each layer and expert",
        "text_tables", reads_loads=True,
        recorded_by="any spreadsheet, or pandas: frame.to_csv(path)",
    ),
})  # fmt: skip
"""Formats by name. Where a file fits several, it is taken for the first of them."""


def check_format(name: str, ability: str) -> Format:
    """Return a format's row, or raise ``ValueError`` if it cannot do what is asked."""
    able = [known for known, row in FORMATS.items() if getattr(row, ability)]
    if not is_one_of(name, able):
        does = {
            "reads_any": "no format that is read",
            "writes_any": "no format that is written",
            "reads_loads": "no format of loads",
            "reads_plans": "no format of plans that are read",
            "writes_plans": "no format of plans that are written",
            "writes_loads": "no format of loads that are written",
        }[ability]
        raise ValueError(f"format={one_line(name)} is {does}: give one of {', '.join(able)}")
    return FORMATS[name]


def find_format(contents: Contents, name: str | None, ability: str) -> tuple[str, Format]:
    """Return name and row of the format of a file: the one that is named, or the first that fits.

    Raises ``ValueError`` if none fits.
    """
    if name is not None:
        row = check_format(name, ability)
        if not row.fits(contents, ability):
            raise _not_of(contents, name)
        return name, row
    others = []
    for known, row in FORMATS.items():
        if row.fits(contents, ability):
            if getattr(row, ability):
                return known, row
            others.append(row.holds)
    if others:
        raise ValueError(f"it is {others[0]}, not {WANTED[ability]}")
    raise ValueError(
        f"it is {contents.describe()}, and of no known format: name it with format=, one of "
        f"{', '.join(known for known, row in FORMATS.items() if getattr(row, ability))}"
    )


def is_plan(contents: Contents, name: str | None) -> bool:
    """Tell whether contents are a plan, and not loads, for what would do with both.

    Raises ``ValueError`` if they are not of the format that is named.
    """
    if name is None:
        return any(row.is_plan(contents) for row in FORMATS.values())
    row = check_format(name, "reads_any")
    if not any(
        getattr(row, ability) and row.fits(contents, ability)
        for ability in ("reads_plans", "reads_loads")
    ):
        raise _not_of(contents, name)
    return row.is_plan(contents)


def _not_of(contents: Contents, name: str) -> ValueError:
    return ValueError(f"it is {contents.describe()}, not of format {name!r}: {FORMATS[name].holds}")


WANTED = {"reads_loads": "loads", "reads_plans": "a plan"}
