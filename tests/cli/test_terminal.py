"""What is shown on terminals, narrow and dumb ones too, and what is not where nobody looks."""

import re

import pytest
from support import needs_jit, run_python
from terminals import CTRL_C, Terminal

COMPILING = "compiling kernels, once on this machine"
PLAN = ("plan", "loads.npy", "--gpus", "8", "--nodes", "2", "--groups", "4", "--policy", "hybrid")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def lines_of(text):
    return ESCAPE.sub("", text).replace("\r", "").splitlines()


@pytest.fixture
def cold(tmp_path_factory):
    """An environment in which nothing has been compiled."""
    empty = str(tmp_path_factory.mktemp("kernels"))
    return {"NUMBA_CACHE_DIR": empty, "XDG_CACHE_HOME": empty}


@pytest.mark.same_without_jit
@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_narrow_terminal_folds_lines_and_loses_nothing(term, files):
    code, text = Terminal(*PLAN, cwd=files, columns=44, term=term).finish()
    lines = [line for line in lines_of(text) if COMPILING not in line]
    assert code == 0
    assert max(map(len, lines)) <= 44
    said = " ".join(" ".join(line[18:] for line in lines).split())
    assert "2 MoE layers planned; 2 dense (all zero), left out: 0, 2" in said
    assert ("\x1b[1m" in text) == (term == "xterm")
    assert term == "xterm" or "\x1b" not in text


@pytest.mark.same_without_jit
def test_a_table_is_folded_too(files):
    _, text = Terminal("show", "new.json", "loads.npy", cwd=files, columns=30).finish()
    assert max(map(len, lines_of(text))) <= 30


@pytest.mark.same_without_jit
@pytest.mark.parametrize("args", [PLAN, ("show", "old.json", "loads.npy"), ("formats", "sglang")])
def test_what_is_piped_has_a_line_for_each_row_and_no_escapes(args, files):
    piped = run_python("-m", "eplb_np", *args, cwd=files, COLUMNS="20", TERM="xterm")
    wide = Terminal(*args, cwd=files, columns=400).finish()[1]
    assert (piped.returncode, piped.stderr) == (0, "")
    assert "\x1b" not in piped.stdout
    without_times = [re.sub(r"\d+\.\d+ m?s\b", "", text) for text in (piped.stdout, wide)]
    shown, expected = (
        [line.rstrip() for line in lines_of(text) if COMPILING not in line]
        for text in without_times
    )
    assert shown == expected
    assert piped.stdout == "".join(f"{line.rstrip()}\n" for line in piped.stdout.splitlines())


@pytest.mark.same_without_jit
def test_colours_are_left_out_where_nobody_wants_them(files):
    text = Terminal(*PLAN, cwd=files, NO_COLOR="1").finish()[1]
    assert not re.search(r"\x1b\[[0-9;]*[34]\dm", text)


@needs_jit
def test_a_spinner_turns_while_kernels_are_compiled_and_then_goes(files, cold):
    code, text = Terminal(*PLAN, cwd=files, **cold).finish()
    assert code == 0
    assert len(set(re.findall(rf"(\S) ?(?:\x1b\[0m)? ?{COMPILING}", text))) > 3
    after = text.rpartition(COMPILING)[2]
    assert "\x1b[2K" in after  # its line is erased
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")  # the cursor is there
    code, text = Terminal(*PLAN, cwd=files, **cold).finish()
    assert code == 0
    assert COMPILING not in text


@needs_jit
def test_a_dumb_terminal_gets_one_plain_line(files, cold):
    _, text = Terminal(*PLAN, cwd=files, term="dumb", **cold).finish()
    assert text.count(COMPILING) == 1
    assert lines_of(text)[0] == COMPILING


@needs_jit
def test_nothing_turns_where_nobody_looks(files, cold):
    result = run_python("-m", "eplb_np", *PLAN, cwd=files, TERM="xterm", **cold)
    assert (result.returncode, result.stderr) == (0, "")
    assert COMPILING not in result.stdout


@needs_jit
def test_ctrl_c_stops_the_spinner(files, cold):
    terminal = Terminal(*PLAN, "-o", "p.json", cwd=files, **cold)
    terminal.wait_for(COMPILING)
    terminal.type(CTRL_C)
    code, text = terminal.finish()
    assert code == 130
    assert "Traceback" not in text
    assert "GPU balancedness" not in text
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")
    assert not (files / "p.json").exists()
