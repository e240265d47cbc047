"""Tables of text in every dialect, and the texts that are none."""

from pathlib import Path

import numpy as np
import pytest
from plain_samples import as_text
from support import refused

from eplb_np.io import read_loads

COUNTS = np.array([[0, 0, 0, 0], [9, 3, 2, 2], [1, 1, 12, 2]])


@pytest.fixture
def read(tmp_path):
    """Read loads from a file of this content."""

    def read(content, format=None, **options):
        path = tmp_path / "loads"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_loads(path, format, **options)

    return read


ROWS = [[9, 3, 2, 2], [1, 1, 12, 2]]

TABLES = {
    "commas": "9,3,2,2\n1,1,12,2\n",
    "commas and blanks": "9, 3, 2, 2\n1, 1, 12, 2",
    "tabs": "9\t3\t2\t2\n1\t1\t12\t2\n",
    "tabs and blanks": " 9 \t 3\t2\t2\n 1 \t1\t12\t 2 ",
    "semicolons": "9;3;2;2\r\n1;1;12;2\r\n",
    "blanks": "  9 3  2 2\n 1 1 12  2 ",
    "old lines": "9,3,2,2\r1,1,12,2\r",
    "exponents": "9e0,.3E+1,2.,20e-1\n+1,1.0,1.2e1,2\n",
    "np.savetxt": "9.000000000000000000e+00 3.0e+00 2e0 2e0\n1.0e+00 1e0 1.2e+01 2.0e+00\n",
    "comments": "# loads\n\n9,3,2,2 # layer 0\n#1,1,1,1\n  \n1,1,12,2#\n\n",
    "quotes": '"9","3",2,"2"\n"1","1","12","2"\n',
    "quotes and blanks": '"9" 3 2  "2"\n"1" "1" 12 2\n',
    "a mark": "\ufeff9,3,2,2\n1,1,12,2\n",
    "a header": "expert_0,expert_1,expert_2,expert_3\n9,3,2,2\n1,1,12,2\n",
    "a header from 1": '"Expert 1"\t"Expert 2"\t"Expert 3"\t"Expert 4"\n9\t3\t2\t2\n1\t1\t12\t2\n',
    "a header in another order": "e10,e08,e9,e11\n2,9,3,2\n12,1,1,2\n".replace(
        "e10,e08,e9,e11", "e2,e00,e1,e3"
    ),
    "a header and comments": "# run 5\nexpert_0,expert_1,expert_2,expert_3\n9,3,2,2\n1,1,12,2\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_layers_is_read(kind, read):
    loads = read(TABLES[kind])
    assert loads.load.tolist() == ROWS
    assert (loads.format, loads.moe_layer_ids, loads.num_steps) == ("text", [0, 1], 1)
    assert loads.notes == ()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_table_in_another_encoding_is_read(encoding, read):
    text = "# Größe\nlayer\te0\te1\n4\t5\t3\n2\t1\t7\n"
    assert read(text.encode(encoding)).load.tolist() == [[1, 7], [5, 3]]


IDS = {
    "layer": "layer,expert_0,expert_1\n3,9,3\n5,1,7\n",
    "layer_id": "layer_id;e0;e1\n3;9;3\n5;1;7\n",
    "Layer Index": '"Layer Index"\t"0"\t"1"\n"3"\t"9"\t"3"\n"5"\t"1"\t"7"\n',
    "pandas": ",0,1\n3,9,3\n5,1,7\n",
    "pandas with tabs": "\t0\t1\n3\t9\t3\n5\t1\t7\n",
    "pandas, twice": "Unnamed: 0,0,1\n3,9,3\n5,1,7\n",
    "a comment": "# np.savetxt\n# layer e0 e1\n3 9 3\n5 1 7\n",
    "another order": "layer,expert_0,expert_1\n5,1,7\n3,9,3\n",
}


@pytest.mark.parametrize("kind", IDS)
def test_a_first_column_of_ids_names_the_layers(kind, read):
    loads = read(IDS[kind])
    assert loads.moe_layer_ids == [3, 5]
    assert loads.load.tolist() == [[9, 3], [1, 7]]
    assert loads.dense_layer_ids == [0, 1, 2, 4]
    assert loads.num_hidden_layers is None
    with refused("the file itself says which layers"):
        read(IDS[kind], moe_layer_ids=[0, 1])


def test_rows_without_load_are_dense(read):
    loads = read(as_text(COUNTS))
    assert (loads.moe_layer_ids, loads.dense_layer_ids, loads.num_hidden_layers) == ([1, 2], [0], 3)


def test_a_first_line_that_counts_is_a_header_and_that_is_said(read):
    loads = read("0,1,2,3\n9,3,2,2\n1,1,12,2\n")
    assert loads.load.tolist() == ROWS
    assert loads.notes == ("line 1, which counts from 0 on, is taken for a header",)
    for text in ("0,1,2,3\n4,5,6,7\n", "0,1,2,3\n", "0,1,2\n9,3,2\n", "1,2,3,4\n9,3,2,2\n"):
        loads = read(text)
        assert len(loads.load) == text.count("\n")
        assert loads.notes == ()


MEGATRON = "block,mtp_idx,layer,expert_id,count\n"


def test_a_line_for_each_layer_and_expert_is_read(read):
    text = MEGATRON + "decoder,None,3,0,9\ndecoder,None,3,2,4\nmtp,0,0,1,5\ndecoder,None,2,1,7\n"
    loads = read(text)
    assert loads.load.tolist() == [[0, 7, 0], [9, 0, 4]]
    assert loads.moe_layer_ids == [2, 3]
    assert loads.notes[0] == "draft layers (mtp) are left out, 1 lines"
    assert "3 experts" in loads.notes[1]
    loads = read(text, num_experts=5)
    assert loads.load.tolist() == [[0, 7, 0, 0, 0], [9, 0, 4, 0, 0]]
    assert len(loads.notes) == 1
    with refused("line 3 is of expert 2, of num_experts=2"):
        read(text, num_experts=2)
    assert read("expert\tlayer\ttokens\n1\t0\t2.5\n").load.tolist() == [[0, 2.5]]


REFUSED = {
    "ragged": ("1,2\n3\n", ["line 2 has 1 columns", "has 2", "the same number"]),
    "ragged below a header": ("e0,e1\n1,2,3\n", ["line 2 has 3 columns", "has 2"]),
    "text": ("1,2\n3,x\n", ["line 2, column 2", "'x' is not a number"]),
    "text in line 1": ("1,x,3\n1,2,3\n", ["line 1, column 2", "'x' is not a number"]),
    "text below a header": ("# a\n\nlayer,e0\n3,x\n", ["line 4, column 2", "'x'"]),
    "negative": ("1,2\n\n3,-4\n", ["line 3, column 2", "'-4'", "not negative"]),
    "NaN": ("1,2\nnan,4\n", ["line 2, column 1", "'nan'", "finite"]),
    "infinite": ("1,inf\n3,4\n", ["line 1, column 2", "'inf'"]),
    "too large": ("1,1e999\n3,4\n", ["line 1, column 2", "'1e999'"]),
    "empty": ("1,2\n3,\n", ["line 2, column 2 is empty", "give a number"]),
    "empty, quoted": ('1,2\n"",4\n', ["line 2, column 1 is empty"]),
    "empty, by tabs": ("1\t2\t3\n4\t\t6\n", ["line 2, column 2 is empty"]),
    "an empty row": ("1,2\n,\n", ["line 2, column 1 is empty"]),
    "a decimal comma": ("1;2\n3;4,5\n", ["line 2, column 2", "'4,5' is not a number"]),
    "underscores": ("1,2\n3,1_000\n", ["line 2, column 2", "'1_000' is not a number"]),
    "other digits": ("1,2\n3,\N{FULLWIDTH DIGIT FOUR}\n", ["line 2, column 2", "is not a number"]),
    "hexadecimal": ("1,2\n0x3,4\n", ["line 2, column 1", "'0x3'"]),
    "an open quote": ('1,2\n3,"4\n', ["line 2", "unexpected end of data"]),
    "all zero": ("0,0\n0,0\n", ["all 2 layers are zero"]),
    "a header alone": ("layer,e0\n# 1,2\n", ["a header, but no line with numbers"]),
    "a header of entries": (MEGATRON, ["a header, but no line with numbers"]),
    "a column of totals": ("e0,e1,total\n1,2,3\n", ["line 1, column 3", "'total' is no expert"]),
    "a column of steps": ("step,layer,e0\n0,1,2\n", ["line 1, column 1", "'step' is no expert"]),
    "free names": ("a,b\n1,2\n", ["line 1, column 1", "'a' is no expert", "expert_0"]),
    "columns of layers": ("expert,layer_0,layer_1\n0,1,2\n", ["line 1, column 1"]),
    "nothing but layers": ("layer_0,layer_1\n1,2\n", ["layers, not experts"]),
    "an expert missing": ("e0,e1,e3\n1,2,3\n", ["line 1 does not name all experts"]),
    "an expert twice": ("e0,e1,e1\n1,2,3\n", ["line 1 does not name all experts"]),
    "long numbers": ("e0,e99999999\n1,2\n", ["'e99999999' is no expert"]),
    "a layer twice": ("layer,e0\n3,1\n3,2\n", ["line 3 is of layer 3", "line 2"]),
    "half a layer": ("layer,e0\n3.5,1\n", ["line 2, column 1", "'3.5' is not a layer id"]),
    "a layer below 0": ("layer,e0\n-3,1\n", ["line 2, column 1", "'-3' is not a layer id"]),
    "a layer that cannot be": ("layer,e0\n1048577,1\n", ["is not a layer id", "1048576"]),
    "layers alone": ("layer\n3\n4\n", ["no empty axis"]),
    "an entry twice": (MEGATRON + "decoder,,3,0,1\ndecoder,,3,0,1\n", ["line 3", "once more"]),
    "an entry below 0": (MEGATRON + "decoder,,3,0,-1\n", ["line 2, column 5", "'-1'"]),
    "an entry that is text": (MEGATRON + "decoder,,3,0,1\ndecoder,,3,1,x\n", ["line 3, column 5"]),
    "an entry with an underscore": (MEGATRON + "decoder,,3,0,1_0\n", ["line 2, column 5", "1_0"]),
    "an entry of no expert": (MEGATRON + "decoder,,3,x,1\n", ["line 2, column 4", "expert id"]),
    "an entry of another block": (MEGATRON + "encoder,,3,0,1\n", ["column 1", "'encoder'"]),
    "a ragged entry": (MEGATRON + "decoder,3,0,1\n", ["line 2 has 4 columns"]),
    "drafts alone": (MEGATRON + "mtp,0,3,0,1\n", ["no line with numbers"]),
    "entries of steps": ("step,layer,expert,count\n0,3,0,1\n", ["column 1", "'step'", "add up"]),
    "sparse entries": (
        "layer,expert,count\n" + "".join(f"{i},{i},1\n" for i in range(5000)), ["16777216"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_other_tables_are_refused(kind, read):
    text, parts = REFUSED[kind]
    with refused("loads: ", *parts):
        read(text)


NO_TABLES = {
    "binary": bytes(range(256)) * 99,
    "zeros": bytes(99),
    "another encoding": "Größe\n1,2\n".encode("latin-1"),
    "Python": Path(__file__).read_bytes(),
    "Python with numbers": b"x = 1\ny = 2\nprint(3, 4, 5, 6)\n",
    "HTML": b"<!DOCTYPE html>\n<html><body>\n<p>1,2,3</p>\n",
    "YAML, a map": b"slots: 6\nassignments:\n  1: [0, 1, 0, 2]\n",
    "YAML, keys first": b"assignments:\n  1: [0,1,0,2,3,1]\n  2: [2,0,2,1,3,2]\n",
    "YAML, a list": b"- 1\n- 2\n- 3\n",
    "YAML, lists": b"- [0, 1, 2, 3, 4, 5]\n- [5, 4, 3, 2, 1, 0]\n",
    "YAML, keys": b"1: 2\n3: 4\n",
    "YAML, blocks": b"layers:\n  1:\n  - 0\n  - 1\n",
    "a log": b"12:00:00 INFO 3 4 5\n12:00:01 INFO 4 5 6\n",
    "prose about layers": b"Layer 5, layer(6) and others.\nlayer\nNobody knows more.\n",
    "prose": b"These are the loads of 2 layers.\nNobody knows more.\n",
    "separators": b",,,\n,,,\n",
    "comments": b"# 1,2\n# 3,4\n",
    "nothing": b"",
    "blank lines": b"\n \n\t\n",
    "a table below much else": b"# a comment of many lines\n" * 20_000 + b"1,2\n",
}


@pytest.mark.parametrize("kind", NO_TABLES)
def test_what_is_no_table_is_of_no_known_format(kind, read):
    with refused("loads: it is ", "of no known format"):
        read(NO_TABLES[kind])
    with refused("loads: it is ", "not of format 'text'"):
        read(NO_TABLES[kind], "text")


def test_what_is_no_text_is_not_called_one(read):
    for kind in ("binary", "zeros", "another encoding"):
        with refused("binary, not text"):
            read(NO_TABLES[kind])
    with refused("an empty file"):
        read(b"")
