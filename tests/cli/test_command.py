"""What all commands have: help with examples, JSON, completion, and streams that are closed."""

import json
import shlex
import subprocess
import sys

import click
import pytest
from support import PACKAGE, TIMEOUT, run_python

from eplb_np.cli import command as group
from eplb_np.cli.errors import in_options

COMMANDS = list(group.commands)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_and_exit_codes(name, command):
    code, out, err = command(name, "-h")
    assert (code, err) == (0, "")
    assert out == command(name, "--help")[1]
    for part in ("Examples:", "Exit codes: 0,", "130", "--json", "-h, --help"):
        assert part in out
    # A wrapped line would not be an example any more.
    assert len([line for line in out.splitlines() if " eplb-np " in line]) >= 2


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_have_options_that_there_are(name):
    examples = [
        shlex.split(line.rpartition("eplb-np")[2].split(">")[0])
        for line in (group.commands[name].epilog or "").splitlines()
        if "eplb-np " in line
    ]
    assert examples
    for first, *args in examples:
        assert first == name
        context = click.Context(
            group.commands[name], parent=click.Context(group, **group.context_settings)
        )
        parser = group.commands[name].make_parser(context)
        parser.parse_args(list(args))  # raises for an unknown option


def test_the_help_lists_the_commands_in_their_order(command):
    code, out, _ = command()
    assert code == 0
    listed = [
        line.split()[0] for line in out.split("Commands:")[1].split("\n\n")[0].splitlines()[1:]
    ]
    assert listed == COMMANDS
    assert COMMANDS[0] == "plan"


def test_an_unknown_command_is_one_line(command):
    code, out, err = command("plans")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "plans" in err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("num_gpus=6 is not a multiple of num_nodes=4", "--gpus=6 is not a multiple of --nodes=4"),
        ("give num_hidden_layers, which is 61", "give --hidden-layers, which is 61"),
        ("the policy of num_gpus_more", "the policy of num_gpus_more"),
        ("give policy='refined'", "give --policy='refined'"),
    ],
)
def test_errors_name_options_in_place_of_arguments(error, said):
    assert in_options(error) == said


@pytest.mark.same_without_jit
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("eplb-np ", COMMANDS),
        ("eplb-np plan --to ", ["eplb_np", "sglang", "tensorrt-llm", "sglang-jax", "vllm-ascend"]),
        ("eplb-np plan --policy r", ["refined"]),
        ("eplb-np formats me", ["megatron", "megatron-trace"]),
        ("eplb-np convert --format l", ["lmdeploy"]),
        ("eplb-np diff --by ", ["layer", "gpu", "move"]),
    ],
)
def test_a_shell_completes(words, expected, files):
    result = run_python(
        "-m", "eplb_np", cwd=files, _EPLB_NP_COMPLETE="zsh_complete",
        COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1::3] == expected


@pytest.mark.same_without_jit
def test_the_script_for_a_shell_is_printed(files):
    result = run_python("-m", "eplb_np", cwd=files, _EPLB_NP_COMPLETE="zsh_source")
    assert "_EPLB_NP_COMPLETE=zsh_complete" in result.stdout


ARGUMENTS = {
    "show": ["new.json", "loads.npy"],
    "diff": ["old.json", "new.json", "--by", "gpu"],
    "formats": [],
    "convert": ["new.json", "-", "--to", "vllm-ascend"],
}


@pytest.mark.same_without_jit
@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("ends", ["full", "closed pipe", "closed"])
def test_nowhere_to_print_is_no_traceback(ends, name, files):
    redirect = {
        "full": ">/dev/full", "closed pipe": "| true", "closed": ">&- <&-"
    }[ends]  # fmt: skip
    args = shlex.join([sys.executable, "-P", "-m", "eplb_np", name, *ARGUMENTS[name]])
    result = subprocess.run(
        f"{args} {redirect}", shell=True, cwd=files, env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True, text=True, timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    if ends == "full":
        assert result.returncode == 1
        assert result.stderr == "eplb-np: standard output: No space left on device\n"


@pytest.mark.parametrize("name", ARGUMENTS)
def test_json_is_one_line(name, command):
    code, out, err = command(name, *ARGUMENTS[name], "--json")
    assert code == 0
    printed = err if name == "convert" else out
    assert printed.count("\n") == 1
    assert json.loads(printed)


def test_closed_standard_input_is_one_line(files):
    result = subprocess.run(
        f"{shlex.quote(sys.executable)} -P -m eplb_np plan - <&-", shell=True, cwd=files,
        env={"PYTHONPATH": str(PACKAGE.parent)}, capture_output=True, text=True,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "eplb-np: standard input: it is closed\n"
