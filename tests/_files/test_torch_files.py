"""What ``torch.save`` writes: read without torch as torch reads it, or refused in one line."""

import io
import itertools
import os
import struct
import warnings
import zipfile

import numpy as np
import pytest
from recorded import INTEROP, needs_interop
from support import assert_same, refusal, refused, said_of
from torch_samples import (
    CLASSES,
    Assembler,
    Call,
    Name,
    Raw,
    Reference,
    Storage,
    Tensor,
    array_of,
    dtype_of,
    recording,
    sound_files,
    storage_class,
    storage_of,
    tensor_of,
    torch_old,
    torch_zip,
    zip_of,
)

from eplb_np._files.numpy_files import fill
from eplb_np._files.pickled_arrays import read_pickled_npy
from eplb_np._files.torch_files import read_torch

COUNTS = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
WRITERS = {"zip": torch_zip, "old": torch_old}
FORMS = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def read(content):
    return read_torch(io.BytesIO(content))


@FORMS
@pytest.mark.parametrize("dtype", [name for name in CLASSES if name != "complex64"])
def test_every_dtype(write, dtype):
    values = (COUNTS % 2 if dtype == "bool" else COUNTS).astype(dtype)
    found = read(write(recording(values)))
    assert_same([found["logical_count"]], [values], dtype)
    assert_same([r["global_physical_count"] for r in found["records"]], values, dtype)
    assert {key: found[key] for key in ("rank", "average", "window")} == {
        "rank": 0, "average": 0.5, "window": None,
    }  # fmt: skip


@FORMS
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64", "int32"])
def test_dtypes_without_a_class_of_storages(write, dtype):
    values = COUNTS.astype(dtype)
    untyped = Name("torch.storage", "UntypedStorage")
    storage = Storage("0", values.tobytes(), values.nbytes, untyped)
    tensor = Tensor(storage, 4, (5, 4), (4, 1), Name("torch", dtype))
    assert_same([read(write(tensor))], [values.reshape(6, 4)[1:]], dtype)
    tensor = Tensor(storage, 4, (5, 4), (4, 1))
    assert_same([read(write(tensor))], [values.reshape(-1).view("u1")[4:24].reshape(5, 4)], dtype)


@FORMS
def test_bfloat16_becomes_float32(write):
    values = np.array([0, 1, -2.5, 3e38, 1e-40, np.inf, np.nan], np.float32)
    data = (values.view(np.uint32) >> 16).astype(np.uint16)
    storage = Storage("0", data.tobytes(), data.size, storage_class("BFloat16"))
    expected = (data.astype(np.uint32) << 16).view(np.float32)
    found = read(write([Tensor(storage, 0, (7,), (1,)), Tensor(storage, 1, (3, 2), (2, 1))]))
    assert_same(found, [expected, expected[1:].reshape(3, 2)], "bfloat16")
    assert found[0][2] == -2.5


@FORMS
def test_views_share_memory(write):
    storage = storage_of(COUNTS)
    flat = COUNTS.reshape(-1)
    views = [
        Tensor(storage, 0, (2, 3, 4), (12, 4, 1)),
        Tensor(storage, 12, (4, 3), (1, 4)),
        Tensor(storage, 1, (3,), (8,)),
        Tensor(storage, 23, (), ()),
        Tensor(storage, 23, (1, 1), (99, 2**61)),
        Tensor(storage, 5, (2, 3), (0, 0)),
        Tensor(storage, 9, (0, 7), (7, 1)),
    ]
    found = read(write(views))
    expected = [
        COUNTS, COUNTS[1].T, flat[1::8], flat[23], flat[23:].reshape(1, 1),
        np.full((2, 3), 5, np.int32), np.zeros((0, 7), np.int32),
    ]  # fmt: skip
    assert_same(found, expected, "views")
    found[1][3, 2] = 99
    assert found[0][1, 2, 3] == found[3] == found[4] == 99


@FORMS
def test_what_stands_around_tensors(write):
    tensor = tensor_of(COUNTS)
    parameter = Name("torch._utils", "_rebuild_parameter")
    device = Name("torch", "device")
    state = Call(Name("collections", "OrderedDict"), (), {"_metadata": Raw(b"}")})
    value = {
        "parameter": Call(parameter, (tensor, True, state)),
        "size": Call(Name("torch", "Size"), ((2, 3),)),
        "devices": [Call(device, ("cpu",)), Call(device, ("cuda", 1))],
        "state": state,
        "numpy": array_of(dtype_of("i8"), (2, 1), bytes(16)),
        "number": Call(Name("numpy.core.multiarray", "scalar"), (dtype_of("f4"), bytes(4))),
        "bytes": b"\0\xff",
    }
    found = read(write(value))
    assert_same([found.pop("parameter")], [COUNTS], "a parameter")
    assert_same([found.pop("numpy")], [np.zeros((2, 1), int)], "an array")
    assert found == {
        "size": (2, 3), "devices": ["cpu", "cuda:1"], "state": {}, "number": 0, "bytes": b"\0\xff",
    }  # fmt: skip


def tensor(shape=(2, 3, 4), strides=(12, 4, 1), offset=0, **more):
    return Tensor(storage_of(COUNTS), offset, shape, strides, **more)


def reference(*parts):
    storage = Reference(parts)
    rebuild = Name("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, (storage, 0, (1,), (1,), False, Raw(b"}")))


def named(name, *arguments):
    module, _, function = name.rpartition(".")
    return Call(Name(module, function), arguments)


INT = storage_class("Int")
TWICE = [tensor_of(COUNTS), tensor_of(COUNTS[0])]
OTHER_KIND = [tensor_of(COUNTS), tensor_of(COUNTS.view(np.float32))]
BAD = {
    "a large shape": (tensor(shape=(3, 3, 4)), ["(3, 3, 4)", "24 x int32"]),
    "a large offset": (tensor(offset=1), ["offset 1", "24 x int32"]),
    "a large stride": (tensor(strides=(12, 4, 2)), ["strides (12, 4, 2)"]),
    "a huge stride": (tensor(strides=(2**61, 4, 1)), ["24 x int32"]),
    "a negative stride": (tensor(strides=(12, 4, -1)), ["not read"]),
    "a negative offset": (tensor(offset=-1), ["not read"]),
    "a negative axis": (tensor(shape=(2, -3, 4)), ["not read"]),
    "a huge axis": (tensor(shape=(2**62, 3, 4)), ["not read"]),
    "many empty rows": (tensor(shape=(2**40, 0, 4)), ["not read"]),
    "a long offset": (tensor(offset=2**500), ["24 x int32"]),
    "fewer strides": (tensor(strides=(12, 4)), ["(2, 3, 4)", "(12, 4)"]),
    "many axes": (tensor(shape=(1,) * 9, strides=(1,) * 9), ["not read"]),
    "a list as shape": (tensor(shape=[2, 3, 4]), ["not read"]),
    "an offset of a float": (tensor(offset=0.5), ["_rebuild_tensor_v2"]),
    "an expanded bomb": (tensor(shape=(2**28, 1, 4), strides=(0, 0, 0)), ["tensors of 4096 MiB"]),
    "many expanded": ([tensor(shape=(2**26,), strides=(0,))] * 3, ["tensors of 768 MiB"]),
    "an expanded bomb that becomes float32": (
        Tensor(Storage("0", bytes(2), 1, storage_class("BFloat16")), 0, (2**28,), (0,)),
        ["tensors of 1024 MiB"],
    ),
    "a sign for all": (tensor(metadata=({"neg": True},)), ["metadata"]),
    "too much metadata": (tensor(metadata=({}, {})), ["_rebuild_tensor_v2"]),
    "two sizes": (TWICE, ["'0'", "24 x int32", "12 x int32"]),
    "two dtypes": (OTHER_KIND, ["'0'", "24 x int32", "24 x float32"]),
    "complex": (tensor_of(COUNTS.astype(np.complex64)), ["torch.ComplexFloatStorage"]),
    "a dtype of 8 bits": (tensor(dtype=Name("torch", "float8_e4m3fn")), ["torch.float8_e4m3fn"]),
    "a dtype of a text": (tensor(dtype="int32"), ["_rebuild_tensor_v3"]),
    "a quantised one": (named("torch._utils._rebuild_qtensor"), ["_rebuild_qtensor"]),
    "a sparse one": (named("torch._utils._rebuild_sparse_tensor"), ["_rebuild_sparse_tensor"]),
    "a nested one": (named("torch._utils._rebuild_nested_tensor"), ["_rebuild_nested_tensor"]),
    "meta": (named("torch._utils._rebuild_meta_tensor_no_storage"), ["meta_tensor_no_storage"]),
    "a subclass": (named("torch._tensor._rebuild_from_type_v2"), ["_rebuild_from_type_v2"]),
    "a file in it": (named("torch.storage._load_from_bytes", b"x"), ["_load_from_bytes"]),
    "a module": (named("torch.nn.modules.linear.Linear"), ["torch.nn.modules.linear.Linear"]),
    "a parameter of none": (named("torch._utils._rebuild_parameter", 1, 2, 3), ["_rebuild_param"]),
    "a size of a text": (named("torch.Size", "ab"), ["torch.Size"]),
    "a device of a list": (named("torch.device", []), ["torch.device"]),
    "a class": (Name("torch", "IntStorage"), ["torch.IntStorage itself"]),
    "a call of a class": (named("torch.IntStorage", 3), ["torch.IntStorage"]),
    "a storage": (storage_of(COUNTS), ["a storage itself"]),
    "another reference": (reference("module", INT, "0", "cpu", 1), ["not a storage"]),
    "a short reference": (reference("storage"), ["not a storage"]),
    "a text as reference": (Reference("storage"), ["not a storage"]),
    "a view of a storage": (reference("storage", INT, "0", "cpu", 1, ("1", 0, 1)), ["part of"]),
    "a storage of a text": (reference("storage", "IntStorage", "0", "cpu", 1), ["not read"]),
    "a storage of a dtype": (reference("storage", Name("torch", "int32"), "0", "cpu", 1), ["form"]),
    "a negative size": (reference("storage", INT, "0", "cpu", -1), ["not read"]),
    "a size of a float": (reference("storage", INT, "0", "cpu", 1.0), ["not read"]),
    "a huge size": (reference("storage", INT, "0", "cpu", 2**40), ["4194304 MiB", "512 MiB"]),
    "an endless size": (reference("storage", INT, "0", "cpu", 2**2030), ["512 MiB"]),
    "half as many of bfloat16": (
        reference("storage", storage_class("BFloat16"), "0", "cpu", 2**28), ["1024 MiB"],
    ),
    "a key of a number": (reference("storage", INT, 0, "cpu", 1), ["name"]),
    "a long key": (reference("storage", INT, "x" * 999, "cpu", 1), ["name"]),
    "a state of bools": (
        Tensor(Storage("0", b"\1\2", 2, storage_class("Bool")), 0, (2,), (1,)), ["neither 0 nor 1"],
    ),
}  # fmt: skip


@FORMS
@pytest.mark.parametrize("kind", BAD)
def test_bad_tensors_are_refused(kind, write):
    value, parts = BAD[kind]
    with refused(*parts):
        read(write({"logical_count": value}))


def deflated(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return zip_of(members, zipfile.ZIP_DEFLATED)


def twice(name):
    file = io.BytesIO(torch_zip(COUNTS))
    with warnings.catch_warnings(), zipfile.ZipFile(file, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile's, about the name
        archive.writestr(name, b"")
    return file.getvalue()


SOUND = torch_zip(COUNTS)
OLD = torch_old(COUNTS)
LITTLE = {"protocol_version": 1001, "little_endian": True}
PICKLE = Assembler().pickle(COUNTS)
END_64 = SOUND.rindex(b"PK\6\6")


def with_64(place, number):
    """A directory whose long form says something else."""
    content = bytearray(SOUND)
    struct.pack_into("<Q", content, END_64 + place, number)
    return bytes(content)


BAD_FILES = {
    "nothing": (b"", ["not in a form"]),
    "a text": (b"step,layer,expert\n", ["not in a form"]),
    "a pickle": (PICKLE, ["not in a form"]),
    "a pickle of a dict": (Assembler().pickle({"logical_count": [[1]]}), ["not in a form"]),
    "a tar file": (b"storages" + bytes(504), ["not in a form"]),
    "an npz file": (zip_of({"logical_count.npy": b""}), ["0 members data.pkl"]),
    "a deep member": (zip_of({"a/b/data.pkl": PICKLE}), ["0 members data.pkl"]),
    "two dumps": (zip_of({"a/data.pkl": PICKLE, "b/data.pkl": PICKLE}), ["2 members data.pkl"]),
    "a script": (torch_zip(COUNTS, {"constants.pkl": b"", "code/a.py": b""}), ["TorchScript"]),
    "big-endian": (torch_zip(COUNTS, byteorder=b"big"), ["little-endian"]),
    "another order": (torch_zip(COUNTS, byteorder=b"x" * 99), ["99 bytes"]),
    "no storage": (torch_zip(COUNTS, **{"data/0": None}), ["no member 'dump/data/0'"]),
    "a short storage": (torch_zip(COUNTS, **{"data/0": bytes(95)}), ["24 x int32", "95 bytes"]),
    "a long storage": (torch_zip(COUNTS, **{"data/0": bytes(97)}), ["24 x int32", "97 bytes"]),
    "more behind the pickle": (torch_zip(COUNTS, pickle=PICKLE + b"N"), ["followed"]),
    "a large pickle": (torch_zip(COUNTS, pickle=bytes(1 << 25)), ["33,554,432 bytes"]),
    "deflated": (deflated(SOUND), ["compressed"]),
    "a pickle twice": (twice("dump/data.pkl"), ["twice"]),
    "a storage twice": (twice("dump/data/0"), ["twice"]),
    "a longer list": (with_64(40, 1 << 40), ["4 GiB"]),
    "a list elsewhere": (with_64(48, 0), ["4 GiB"]),
    "a long form elsewhere": (with_64(64, 0), ["4 GiB"]),
    "no long form": (SOUND.replace(b"PK\6\6", b"PK\6\5"), ["4 GiB"]),
    "another magic number": (OLD.replace(b"\x6c\xfc\x9c", b"\x6c\xfc\x9d"), ["not in a form"]),
    "another protocol": (OLD.replace(b"M\xe9\3.", b"M\xea\3."), ["not in a form"]),
    "an old big-endian": (torch_old(COUNTS, {**LITTLE, "little_endian": False}), ["little-endian"]),
    "no system": (torch_old(COUNTS, []), ["little-endian"]),
    "no keys": (torch_old(COUNTS, keys=[]), ["list of storages"]),
    "another key": (torch_old(COUNTS, keys=["1"]), ["list of storages"]),
    "a key twice": (torch_old(COUNTS, keys=["0", "0"]), ["list of storages"]),
    "a key of a list": (torch_old(COUNTS, keys=[["0"]]), ["list of storages"]),
    "a cut": (OLD[:-1], ["not as long"]),
    "more behind": (OLD + b"x", ["not as long"]),
    "another length": (OLD[: -96 - 8] + struct.pack("<q", 23) + bytes(96), ["'0' is not as long"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_are_refused(kind):
    content, parts = BAD_FILES[kind]
    with refused(*parts):
        read(content)


def test_the_order_of_the_old_keys_is_that_of_the_storages():
    assembler = Assembler(old=True)
    value = assembler.pickle([tensor_of(COUNTS), tensor_of(COUNTS + 1, "b")])
    parts = [Assembler().pickle(p) for p in (0x1950A86A20F9469CFC6C, 1001, LITTLE)]
    parts += [value, Assembler().pickle(["b", "0"])]
    parts += [struct.pack("<q", 24) + counts.tobytes() for counts in (COUNTS + 1, COUNTS)]
    assert_same(read(b"".join(parts)), [COUNTS, COUNTS + 1], "two storages")


def test_a_file_that_ends_while_it_is_read():
    with refused("ends before its data does"):
        fill(np.empty(4, np.uint8), io.BytesIO(b"abc"))


def test_archives_in_either_form_are_read():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive, zipfile.ZipFile(io.BytesIO(SOUND)) as sound:
        for name in sound.namelist():
            archive.writestr(name, sound.read(name))
        archive.comment = b"a comment"
    assert_same([read(file.getvalue())], [COUNTS], "the short form")
    assert_same([read(torch_zip(COUNTS, byteorder=None))], [COUNTS], "without a byte order")


# ---------------------------------------------------------------------------------------------
# Bombs
# ---------------------------------------------------------------------------------------------

READ_PT = "from torch_samples import read_pt"
NO_VALUE = Name("torch", "int8")
"""What is refused when all before it has been read."""


def many_storages(count):
    """Small tensors, each of a storage of its own."""
    kind = storage_class("Byte")
    tensors = [Tensor(Storage(str(i), b"1", 1, kind), 0, (), ()) for i in range(count)]
    return torch_zip([*tensors, NO_VALUE])


def one_large(kind, count):
    """A tensor without its numbers, which may follow."""
    return Tensor(Storage("0", b"", count, storage_class(kind)), 0, (count,), (1,))


def one_tensor_often():
    """A tensor of a MiB, a hundred thousand times."""
    tensor = Assembler().pickle(tensor_of(np.zeros(1 << 17)))[2:-1]
    code = b"(" + tensor + b"q\xff" + b"h\xff" * 100_000 + b"t"
    return torch_zip({"a": tensor_of(np.zeros(1 << 17)), "b": Raw(code)})


def expanded_often():
    return torch_zip([tensor(shape=(1 << 20,), strides=(0,))] * 200)


def zip_bomb():
    return zip_of({"a/data.pkl": bytes(1 << 24)}, zipfile.ZIP_DEFLATED)


BOMBS = {
    "many storages": (lambda: many_storages(18_000), "torch.int8 itself"),
    "a long list": (lambda: many_storages(40_000), "too long"),
    "one tensor often": (one_tensor_often, "512 MiB"),
    "many expanded": (expanded_often, "512 MiB"),
    "a zip bomb": (zip_bomb, "compressed"),
}  # fmt: skip


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_soon(kind, tmp_path):
    write, said = BOMBS[kind]
    path = tmp_path / "file.pt"
    path.write_bytes(write())
    assert said in refusal("read_pt", path, READ_PT)


LARGEST = {"Long": (1 << 26, 8), "Byte": (1 << 29, 1), "Bool": (1 << 29, 1)}
LARGEST["BFloat16"] = (1 << 27, 2)  # and becomes twice as much


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", LARGEST)
def test_as_much_as_may_be_is_read_within_a_gigabyte(kind, tmp_path):
    """Half a second's work, but the first use of so much memory was seen to take a second more."""
    count, size = LARGEST[kind]
    path = tmp_path / "file.pt"
    path.write_bytes(torch_old(one_large(kind, count)))
    os.truncate(path, path.stat().st_size + count * size)
    assert said_of("(lambda path: read_pt(path).shape)", path, READ_PT) == f"read ({count},)"
    path.write_bytes(torch_old(one_large(kind, count + 1)))
    assert "512 MiB" in refusal("read_pt", path, READ_PT)


# ---------------------------------------------------------------------------------------------
# What others wrote
# ---------------------------------------------------------------------------------------------


def test_sound_files_are_read():
    for kind, content in sound_files(COUNTS).items():
        npy = kind == "pickled npy"
        found = (read_pickled_npy if npy else read_torch)(io.BytesIO(content))
        assert_same([found["logical_count"]], [COUNTS[0] if npy else COUNTS], kind)


def logical(counts, phy2log):
    """Fold counts [..., L, P] of physical experts."""
    folded = np.zeros((*counts.shape[:-1], phy2log.max() + 1), counts.dtype)
    for layer, experts in enumerate(phy2log):
        for slot, expert in enumerate(experts):
            folded[..., layer, expert] += counts[..., layer, slot]
    return folded


@needs_interop
@pytest.mark.parametrize("kind", ["stat", "stat_two_ranks", "stat_wrapped", "stat_infinite"])
def test_what_sglang_sums_up_is_read(kind):
    (path,) = INTEROP.glob(f"sglang_{kind}/*.pt")
    with path.open("rb") as file:
        found = read_torch(file)
    expected = logical(
        np.load(INTEROP / f"sglang_{kind}.expected.npy").sum(1), np.load(INTEROP / "p2l.npy")
    )
    length = len(found["logical_count"])
    buffer = np.zeros((length, *expected.shape[1:]), np.int32)
    for step, counts in enumerate(expected):
        buffer[step % length] = counts
    assert_same([found["logical_count"]], [buffer], kind)
    assert found.keys() == {"rank", "logical_count", "average_utilization_rate_over_window"}


@needs_interop
@pytest.mark.parametrize("kind", ["per_pass", "per_token"])
def test_what_sglang_records_is_read(kind):
    expected = np.load(INTEROP / f"sglang_{kind}.expected.npy")
    paths = sorted(INTEROP.glob(f"sglang_{kind}/*.pt"))
    assert len(paths) == expected.shape[1]
    for path in paths:
        with path.open("rb") as file:
            found = read_torch(file)
        phy2log = np.load(INTEROP / "p2l.npy")
        assert np.array_equal(found["last_physical_to_logical_map"], phy2log)
        assert len(found["records"]) == len(expected)
        for record in found["records"]:
            counts = expected[record["forward_pass_id"], record["rank"]]
            assert_same([record["global_physical_count"]], [counts], str(path))
            if kind == "per_token":
                for layer, chosen in enumerate(record["topk_ids_of_layer"]):
                    found_counts = np.bincount(chosen[chosen >= 0], minlength=counts.shape[1])
                    assert np.array_equal(found_counts, counts[layer])


@needs_interop
def test_what_sglang_jax_records_is_read():
    for kind, shape in [("sgljax", (3, 8)), ("sgljax_no_metadata", (3, 10))]:
        (path,) = INTEROP.glob(f"{kind}/*.npy")
        with path.open("rb") as file:
            found = read_pickled_npy(file)
        assert found.keys() == {"logical_count", "timestamp"}
        counts, expected = found["logical_count"], np.load(path, allow_pickle=True).item()
        assert_same([counts], [expected["logical_count"]], kind)
        assert (counts.shape, found["timestamp"]) == (shape, "20261124_1541")


# ---------------------------------------------------------------------------------------------
# torch itself, where it is installed
# ---------------------------------------------------------------------------------------------

SAVES = list(itertools.product([True, False], [2, 4, 5]))
DTYPES = [*CLASSES, "bfloat16", "uint16", "uint32", "uint64"]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def saved(torch, value, as_zip=True, protocol=2):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about what it no longer likes
        torch.save(value, file, pickle_protocol=protocol, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


def random_tensor(torch, rng):
    """A tensor, or a view of one."""
    dtype = getattr(torch, rng.choice([name for name in DTYPES if name != "complex64"]))
    shape = [int(rng.integers(0, 5)) for _ in range(rng.integers(0, 4))]
    found = torch.from_numpy(rng.integers(0, 100, shape)).to(dtype)
    for _ in range(rng.integers(0, 3)):
        if found.ndim and rng.random() < 0.3:
            found = found.transpose(0, found.ndim - 1)
        if found.ndim and rng.random() < 0.3:
            found = found[int(rng.integers(0, 2)) :: int(rng.integers(1, 3))]
        if found.ndim and rng.random() < 0.3:
            found = found.unsqueeze(0).expand(2, *found.shape)
    if found.is_floating_point() and rng.random() < 0.3:
        found = torch.nn.Parameter(found)
    return found


def assert_as_torch_reads(torch, found, expected):
    if isinstance(expected, torch.Tensor):
        expected = expected.detach()
        if expected.dtype == torch.bfloat16:
            expected = expected.float()
        assert_same([found], [expected.numpy()], "a tensor")
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key, part in expected.items():
            assert_as_torch_reads(torch, found[key], part)
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for part, other in zip(found, expected, strict=True):
            assert_as_torch_reads(torch, part, other)
    else:
        assert found == expected
        assert type(found) is type(expected)


def test_random_dumps_of_torch(torch):
    rng = np.random.default_rng(3)
    for i in range(300):
        parts = [random_tensor(torch, rng) for _ in range(rng.integers(0, 6))]
        values = [
            None,
            True,
            1.5,
            -3,
            2**70,
            "text",
            [],
            (),
            parts[:2],
            {"a": parts, 3: tuple(parts)},
        ]
        value = {str(k): values[k] for k in rng.permutation(len(values))[: rng.integers(1, 9)]}
        value["tensors"] = [*parts, *[part.t() for part in parts if part.ndim == 2]]
        content = saved(torch, value, as_zip=bool(i % 2))
        found = read(content)
        assert_as_torch_reads(torch, found, value)
        if i % 2:  # torch itself does not read all that it writes in its older form
            expected = torch.load(io.BytesIO(content), weights_only=True)
            assert_as_torch_reads(torch, found, expected)


@pytest.mark.parametrize(("as_zip", "protocol"), SAVES)
def test_what_torch_saves_is_read(torch, as_zip, protocol):
    base = torch.arange(24).reshape(4, 6)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    value = {
        "module": torch.nn.Linear(2, 3).state_dict(), "optimizer": optimizer.state_dict(),
        "base": base, "view": base[1:, ::2].t(), "size": base.shape, "bytes": b"\0\xff",
        "empty": torch.zeros(0, 4), "0-d": torch.tensor(3.5), "wide": torch.ones(1).expand(3, 2),
        "dtypes": [torch.ones(3).to(getattr(torch, n)) for n in DTYPES if n != "complex64"],
    }  # fmt: skip
    found = read(saved(torch, value, as_zip, protocol))
    assert_as_torch_reads(torch, found, value)
    assert np.shares_memory(found["base"], found["view"])
    more = {"device": torch.device("cuda:1"), "array": np.arange(3), "number": np.float32(2)}
    found = read(saved(torch, more, as_zip, protocol))
    assert (found["device"], found["array"].tolist(), found["number"]) == ("cuda:1", [0, 1, 2], 2.0)


REFUSED = {
    "sparse": lambda torch: torch.zeros(3).to_sparse(),
    "complex": lambda torch: torch.zeros(3, dtype=torch.complex64),
    "meta": lambda torch: torch.zeros(3, device="meta"),
    "negated": lambda torch: torch._neg_view(torch.ones(3)),
    "float8": lambda torch: torch.zeros(3, dtype=torch.float8_e4m3fn),
    "subclass": lambda torch: torch.zeros(3).as_subclass(torch.nn.Buffer),
    "storage": lambda torch: torch.zeros(3).untyped_storage(),
    "module": lambda torch: torch.nn.Linear(2, 2),
    "dtype": lambda torch: torch.float32,
    "set": lambda torch: {1, 2},
}


@pytest.mark.parametrize("as_zip", [True, False])
@pytest.mark.parametrize("kind", REFUSED)
def test_other_things_of_torch_are_refused(torch, kind, as_zip):
    with refused("its pickle"):
        read(saved(torch, {"a": REFUSED[kind](torch)}, as_zip))


def test_scripts_of_torch_are_refused(torch):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about what it no longer likes
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), file)
    with refused("TorchScript"):
        read(file.getvalue())


def test_torch_reads_the_samples(torch):
    """Which are made by these tests, so that no more is shown than that they are sound."""
    for kind, content in sound_files(COUNTS).items():
        if kind != "pickled npy":
            found = torch.load(io.BytesIO(content), weights_only=True)
            assert np.array_equal(found["logical_count"], COUNTS)
