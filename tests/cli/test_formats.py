"""``eplb-np formats``, and formats as options."""

import json

import pytest

from eplb_np.io import FORMATS


def test_all_formats_are_listed(command):
    code, out, err = command("formats")
    assert (code, err) == (0, "")
    header, *lines = out.splitlines()
    assert header.split() == ["format", "loads", "plans", "of"]
    assert [line.split()[0] for line in lines] == list(FORMATS)
    rows = dict(zip(FORMATS, lines, strict=True))
    assert rows["sglang"].split() == [
        "sglang", "read,", "written", "read,", "written", "SGLang"
    ]  # fmt: skip
    assert rows["megatron"].split() == ["megatron", "read", "-", "Megatron-LM"]


def test_one_format_is_described_and_how_to_record_it(command):
    for name, row in FORMATS.items():
        code, out, _ = command("formats", name)
        assert code == 0
        assert row.holds in out
        assert row.recorded_by
        assert f"to record  {row.recorded_by}\n" in out


def test_formats_for_machines(command):
    found = json.loads(command("formats", "--json")[1])
    assert [row["name"] for row in found] == list(FORMATS)
    for row in found:
        for name in ("reads_loads", "writes_loads", "reads_plans", "writes_plans", "recorded_by"):
            assert row[name] == getattr(FORMATS[row["name"]], name)
    assert len(json.loads(command("formats", "text", "--json")[1])) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["formats", "other"], "'other' is unknown: give one of eplb_np, sglang"),
        (["plan", "loads.npy", "--format", "other"], "'other' is no format of loads: give one of"),
        (["plan", "loads.npy", "--to", "numpy"], "'numpy' is no format of plans that are written"),
    ],
)
def test_an_unknown_format_is_one_line_with_the_known_ones(args, said, command):
    code, out, err = command(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err
