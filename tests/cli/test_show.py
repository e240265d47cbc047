"""``eplb-np show``: the numbers of a plan, by layer and by GPU."""

import json
import re

import numpy as np
import pytest
from support import run_python

from eplb_np import Plan, Topology, make_plan
from eplb_np.io import write_plan


def test_layers_are_shown_with_their_balance(command, made):
    code, out, err = command("show", "old.json", "loads.npy")
    assert (code, err) == (0, "")
    header, *lines = out.split("\n\n")[0].splitlines()
    assert header.split("  ")[0] == "layer"
    gpu_load = made.old.gpu_load(made.rows)
    rows = zip(
        made.ids, lines, gpu_load, made.old.lower_bound(made.rows), made.old.logcnt, strict=True
    )
    for layer, line, load, bound, replicas in rows:
        cells = line.split()
        assert cells[0] == str(layer)
        assert cells[1] == f"{load.mean() / load.max():.4f}"
        assert cells[2] == f"{load.mean() / bound:.4f}"
        assert cells[3:6] == [str(load.argmax()), str(replicas.max()), str(replicas.argmax())]
    assert f"GPU balancedness  {made.old.balancedness(made.rows):.4f}, at most" in out


def test_without_loads_there_is_no_balance(command):
    code, out, _ = command("show", "new.json")
    assert code == 0
    assert "balanced" not in out
    assert "most replicas" in out


def test_gpus_of_a_layer_are_shown_with_their_experts(command, made):
    _, out, _ = command("show", "new.json", "loads.npy", "--layer", "3", "--json")
    gpus = json.loads(out)["gpus"]
    assert [gpu["experts"] for gpu in gpus] == made.new.phy2log[1].reshape(8, 2).tolist()
    assert [gpu["load"] for gpu in gpus] == made.new.gpu_load(made.rows)[1].tolist()
    assert [gpu["node"] for gpu in gpus] == [0] * 4 + [1] * 4
    mean = np.mean([gpu["load"] for gpu in gpus])
    assert gpus[2]["times_the_mean"] == pytest.approx(gpus[2]["load"] / mean)


def test_a_layer_that_is_not_there_is_one_line(command):
    code, out, err = command("show", "new.json", "--layer", "2")
    assert (code, out) == (2, "")
    assert err == "eplb-np: --layer 2: there is none; layers are 1, 3\n"


def test_a_node_that_carries_more_is_shown(command, made):
    skewed = np.where(np.arange(12) < 3, 1000.0, 1.0) * (made.load > 0)
    np.save("skewed.npy", skewed)
    _, out, _ = command("show", "new.json", "skewed.npy")
    found = made.new.summary(skewed[list(made.ids)])
    assert found.busiest_node_layers == 1
    assert (
        f"the busiest carries {found.node_share:.4f} times the mean; it is node "
        f"{found.busiest_node} in 1 of 2 layers"
    ) in out


def test_duplicates_are_shown(command):
    plan = make_plan([[90, 30, 10, 10]], num_replicas=6, num_gpus=2, policy="hybrid")
    Plan.save(plan, "double.json")
    assert plan.summary([[1, 1, 1, 1]]).duplicates == 1
    assert "1: slots whose expert is on their GPU already" in command("show", "double.json")[1]


def test_a_plan_of_an_engine_is_shown_with_sizes_that_its_file_lacks(command, made):
    write_plan(made.new, "sglang.json", "sglang", num_hidden_layers=4)
    code, _, err = command("show", "sglang.json", "loads.npy")
    assert (code, err) == (
        2, "eplb-np: sglang.json: the file does not say how many GPUs there are: give --gpus\n"
    )  # fmt: skip
    sizes = ["--gpus", "8", "--nodes", "2", "--groups", "4"]
    shown = json.loads(command("show", "sglang.json", "loads.npy", *sizes, "--json")[1])
    known = json.loads(command("show", "new.json", "loads.npy", "--json")[1])
    assert shown.pop("policy") == "sglang"
    known.pop("policy")
    assert shown == known  # the layers that have load, although the file has all four
    listed = json.loads(command("show", "sglang.json", *sizes, "--json", "--layers", "0,2-3")[1])
    assert [row["layer"] for row in listed["layers"]] == [0, 2, 3]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpus", "4"], "it is for 8 GPUs, not 4: leave --gpus out"),
        (["--layers", "1-2"], "it has no layer 2; its layers are 1, 3"),
        (["--layers", "3-1"], "give ids, as in 3-60"),
        (["--layers", "x"], "give ids, as in 3-60"),
        (["--layers", "0-9999999"], "give ids, as in 3-60"),
        (["--nodes", "3"], "--gpus=8 is not a multiple of --nodes=3"),
    ],
)
def test_what_does_not_fit_a_plan_is_one_line(options, said, command):
    code, out, err = command("show", "new.json", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_loads_must_fit_the_plan(command, made):
    np.save("other.npy", made.load[:, :10])
    assert "it has 10 experts, but the plan has 12" in command("show", "new.json", "other.npy")[2]
    np.save("first.npy", made.load[:2])
    code, _, err = command("show", "new.json", "first.npy", "--layers", "1,3")
    assert code == 2
    assert "layer 3 of the plan has no load; those that have are 1" in err


def test_nodes_of_a_plan_of_our_own_may_be_looked_at_otherwise(command, made):
    _, out, _ = command("show", "new.json", "--nodes", "4", "--groups", "1", "--json")
    shown = json.loads(out)
    assert (shown["num_nodes"], shown["num_groups"]) == (4, 1)


def test_gpus_that_differ_or_are_gone_are_said(command):
    topology = Topology(4, 9, 3, gpu_slots=[2, 3, 4], active_gpus=[0, 2])
    plan = make_plan(np.arange(1.0, 9).reshape(2, 4), topology, policy="refined")
    plan.save("differ.json")
    _, out, _ = command("show", "differ.json", "--layer", "1")
    assert "4 experts in 9 slots on 3 GPUs, 2 to 4 replicas per GPU; GPUs that are gone: 1" in out
    assert "- - -" in out


# ---------------------------------------------------------------------------------------------
# Pictures, also of diff
# ---------------------------------------------------------------------------------------------

PNG, SVG = b"\x89PNG", b"<?xml"


@pytest.mark.parametrize(
    ("args", "start"),
    [
        (["show", "new.json", "loads.npy", "-o", "p.png"], PNG),
        (["show", "new.json", "-o", "p.svg", "--theme", "dark"], SVG),
        (["diff", "old.json", "new.json", "loads.npy", "-o", "p.png"], PNG),
    ],
)
def test_a_picture_is_drawn(args, start, command, files):
    pytest.importorskip("matplotlib")
    code, out, err = command(*args)
    assert (code, err) == (0, "")
    assert f"written to  {args[args.index('-o') + 1]}\n" in re.sub(" {2,}", "  ", out)
    assert re.search(r"^picture +\S+ ", out, re.MULTILINE)
    assert (files / args[args.index("-o") + 1]).read_bytes().startswith(start)
    assert json.loads(command(*args, "--json")[1])


@pytest.fixture
def drawn(monkeypatch):
    """Calls of the library's functions that draw, by name, which then draw something small."""
    matplotlib = pytest.importorskip("matplotlib.figure")
    calls = {}

    def stand_in(name):
        def draw(*args, **options):
            calls[name] = (args, options)
            return matplotlib.Figure((1, 1))

        return draw

    for name in ("gpu_loads", "replicas"):
        monkeypatch.setattr(f"eplb_np.pictures.{name}", stand_in(name))
    return calls


def test_what_is_drawn_is_what_is_given(drawn, command, made):
    command("show", "new.json", "loads.npy", "-o", "p.svg", "--theme", "dark")
    (plan, load), options = drawn["gpu_loads"]
    assert plan == made.new
    assert np.array_equal(load, made.rows)
    assert options == {"theme": "dark"}
    command("diff", "old.json", "new.json", "loads.npy", "-o", "p.svg")
    (plan, load), options = drawn["gpu_loads"]
    assert (plan, options) == (made.new, {"before": made.old, "theme": "light"})
    command("show", "new.json", "-o", "p.svg")
    assert drawn["replicas"] == ((made.new,), {"theme": "light"})


def test_a_picture_to_standard_output(drawn, command):
    code, out, err = command("show", "new.json", "-o", "-")
    assert code == 0
    assert out.startswith("<?xml")
    assert "written to  standard output" in err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "new.json", "-o", "p.pdf"], "p.pdf: unknown file suffix '.pdf'"),
        (["show", "new.json", "-o", "absent/p.png"], "absent/p.png"),
        (["show", "new.json", "-o", "p.png", "--layer", "1"], "leave --layer out"),
        (["diff", "old.json", "new.json", "-o", "p.png"], "give LOADS"),
        (["show", "new.json", "same.png", "-o", "same.png"], "it is the file that is read"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(args, said, command, files):
    (files / "loads.npy").rename("same.png")
    code, out, err = command(*args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_without_matplotlib_it_says_how_to_get_it(files):
    code = (
        "import sys; sys.modules['matplotlib'] = None; "
        "sys.argv = ['eplb-np', 'show', 'new.json', '-o', 'p.png']; "
        "from eplb_np.__main__ import main; main()"
    )
    result = run_python("-c", code, cwd=files)
    assert (result.returncode, result.stdout) == (1, "")
    assert re.fullmatch(r"eplb-np: .*eplb-np\[pictures\].*\n", result.stderr)
