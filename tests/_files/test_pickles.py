"""Pickles: what is read of their language, and that nothing else is, however they are made."""

import collections
import io
import pickle
import pickletools
import shutil
import struct

import numpy as np
import pytest
from support import assert_same, refusal, refused
from torch_samples import Assembler, Call, Name, Raw, array_of, dtype_of, npy_of_pickle

from eplb_np._files.pickled_arrays import read_pickled_npy
from eplb_np._files.pickles import LARGEST_PICKLE, MOST_STEPS, REFUSED, STEPS, Pickles
from eplb_np._files.plain_values import DEEPEST, MOST_VALUES, plain

PLAIN = {
    "": [None, True, False, 0, 255, 256, 65_535, 65_536, -1, -(2**31), 2**31, 2**70, -(2**70)],
    "numbers": (0.5, -0.0, 1e308, float("inf")), "texts": ["", "a", "ü\n\0", "x" * 300],
    "bytes": [b"", b"\xff", bytes(300)], "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    5: {-1: {}, b"k": [[[]]]}, "many": list(range(2000)), "long": {i: str(i) for i in range(2000)},
}  # fmt: skip
SHARED = ["the same"]


def load(data, names=None, persistent=None):
    pickles = Pickles(data, {} if names is None else names, persistent)
    value = plain(pickles.load())
    pickles.end()
    return value


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_values_are_what_pickle_reads(protocol):
    value = {**PLAIN, "twice": [SHARED, SHARED]}
    found = load(pickle.dumps(value, protocol))
    assert found == value
    assert repr(found) == repr(value)
    assert found["twice"][0] is found["twice"][1]


def test_protocol_2_needs_functions_for_bytes():
    def encode(text, encoding):
        return text.encode(encoding)

    names = {"_codecs.encode": encode, "__builtin__.bytes": bytes, "collections.OrderedDict": dict}
    value = {**PLAIN, "dict": collections.OrderedDict(a=1)}
    assert load(pickle.dumps(value, 2), names) == value


def test_every_opcode_is_read_or_refused_by_its_name():
    known = {ord(opcode.code): opcode.name for opcode in pickletools.opcodes}
    assert not STEPS.keys() & REFUSED.keys()
    assert {*STEPS, *REFUSED, ord(".")} == known.keys()
    for code, name in REFUSED.items():
        assert known[code] == name
        with refused(f"opcode {name}"):
            load(b"\x80\2]" + bytes([code]) + b"0\n0\n.")
    for code in set(range(256)) - known.keys():
        with refused(f"opcode {code:#04x}"):
            load(bytes([code]))


class Evil:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


FOREIGN = {
    "posix.system": Evil(__import__("os").system, "true"),
    "shutil.rmtree": Evil(shutil.rmtree, "x"),
    "builtins.eval": Evil(eval, "1"),
    "builtins.getattr": Evil(getattr, 1, "real"),
    "numpy.load": Evil(np.load, "x"),
    "decimal.Decimal": __import__("decimal").Decimal(1),
    "collections.Counter": collections.Counter("aa"),
    "test_pickles.Evil": Raw(b"ctest_pickles\nEvil\n."),
    "numpy.ndarray.dump": Raw(b"\x8c\x05numpy\x8c\x0cndarray.dump\x93."),
    "numpy.dtype.\x1b[31m": Raw(b"cnumpy.dtype\n\x1b[31m\n."),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("protocol", [2, 4])
def test_foreign_names_are_refused(name, protocol):
    value = FOREIGN[name]
    data = value.code if isinstance(value, Raw) else pickle.dumps({"a": value}, protocol)
    if protocol == 2:
        name = name.replace("builtins", "__builtin__")
    with refused(f"names {name},"):
        read_pickled_npy(io.BytesIO(npy_of_pickle(data)))


def test_a_dotted_name_is_not_that_of_another_module():
    """Though both are written in the same way."""
    names = {"a.b.c": dict}
    assert load(b"ca.b\nc\n)R.", names) == {}
    with refused("names a.b.c,"):
        load(b"ca\nb.c\n)R.", names)


DAMAGED = {
    "nothing": (b"", ["byte 0"]),
    "no end": (b"\x80\2N", ["byte 3"]),
    "protocol 6": (b"\x80\6N.", ["protocol 6"]),
    "no value": (b"\x80\2.", ["one value"]),
    "two values": (b"\x80\2NN.", ["one value"]),
    "an open mark": (b"\x80\2N(N.", ["one value"]),
    "no mark": (b"\x80\2Nt.", ["damaged"]),
    "nothing to append": (b"\x80\2]a.", ["damaged"]),
    "append below a mark": (b"\x80\2](Na.", ["damaged"]),
    "too few for a tuple": (b"\x80\2N\x86.", ["damaged"]),
    "an unknown memo": (b"\x80\2h\5.", ["damaged"]),
    "a put of nothing": (b"\x80\2q\0.", ["damaged"]),
    "a huge memo": (b"\x80\2Nr\xff\xff\xff\xffj\xfe\xff\xff\xff.", ["damaged"]),
    "a short number": (b"\x80\2J\0\0", ["byte 3"]),
    "a short float": (b"\x80\2G\0\0", ["byte 3"]),
    "a huge text": (b"\x80\2X\xff\xff\xff\xffa.", ["damaged"]),
    "a huge buffer": (b"\x80\5\x96" + b"\xff" * 8 + b".", ["damaged"]),
    "a text of no UTF-8": (b"\x80\2X\1\0\0\0\xff.", ["UTF-8"]),
    "a lone surrogate": (b"\x80\2X\3\0\0\0\xed\xa0\x80.", ["UTF-8"]),
    "an endless name": (b"\x80\2c" + b"a" * 2000 + b"\nb\n", ["name without"]),
    "append to a tuple": (b"\x80\2)Na.", ["tuple", "list"]),
    "items of a list": (b"\x80\2](NNu.", ["list", "dict"]),
    "a key alone": (b"\x80\2}(Nu.", ["without a value"]),
    "a key of a list": (b"\x80\2}]Ns.", ["a list as the key"]),
    "a key of a tuple": (b"\x80\2}K\1\x85Ns.", ["a tuple as the key"]),
    "a key of a float": (b"\x80\2}G" + bytes(8) + b"Ns.", ["a float as the key"]),
    "a long key": (b"\x80\2}\x8a\x09" + b"\xff" * 8 + b"\x7fNs.", ["a int as the key"]),
    "a call of a list": (b"\x80\2])R.", ["list", "Global"]),
    "a call without a tuple": (b"\x80\2c_\nf\n]R.", ["list", "tuple"]),
    "a call of an argument": (b"\x80\2c_\na\n)R.", ["calls _.a, which"]),
    "a call with others": (b"\x80\2c_\nf\nN\x85R.", ["_.f", "1 arguments"]),
    "a name as a value": (b"\x80\2]c_\na\na.", ["_.a itself"]),
    "attributes of a list": (b"\x80\2]}b.", ["attributes", "list"]),
    "attributes of a name": (b"\x80\2c_\nf\n}b.", ["attributes", "Global"]),
    "a persistent id": (b"\x80\2NQ.", ["BINPERSID"]),
    "more behind": (b"\x80\2N.N", ["followed"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_pickles_are_refused(kind):
    data, parts = DAMAGED[kind]
    with refused(*parts):
        load(data, {"_.f": lambda: None, "_.a": None})


# ---------------------------------------------------------------------------------------------
# Bombs
# ---------------------------------------------------------------------------------------------


def text(size):
    return b"X" + struct.pack("<I", size) + b"a" * size


def tuple_of(code, count, before=b"", end=b""):
    """Many of the same."""
    return b"\x80\2(" + before + code * count + end + b"t."


def then_refused(code, count, before=b""):
    """The same, and at its end what is no value: until then all of it is read, and finished."""
    return tuple_of(code, count, before, b"cnumpy\nndarray\n")


ENCODE = b"c_codecs\nencode\nq\0X\6\0\0\0latin1q\1" + text(13 << 20) + b"q\2"
MIB_OF_BYTES = Raw(b"B" + struct.pack("<I", 1 << 20) + bytes(1 << 20))
ARRAY = Assembler().pickle(array_of(dtype_of("i1", "|"), (1 << 20,), MIB_OF_BYTES))[2:-1]
LEFT = MOST_STEPS - 300
"""Steps that the file around a bomb leaves."""

MANY_MEMOS = b"".join(b"Nr" + struct.pack("<I", i * 999) for i in range(LEFT // 2))
BOMBS = {
    "a list in itself": (b"\x80\2]q\0h\0a.", ["in itself"]),
    "a dict in itself": (b"\x80\2}q\0K\0h\0s.", ["in itself"]),
    "a list in itself a million times": (b"\x80\2]q\0(" + b"h\0" * LEFT + b"e.", ["in itself"]),
    "2**30 times a list": (
        tuple_of(b"", 0, b"]" + b"".join(b"q%c](h%ch%ce" % (i, i, i) for i in range(30))),
        ["values"],
    ),
    "2**30 times a tuple": (b"\x80\2)" + b"q\0h\0\x86" * 30 + b".", ["values"]),
    "a text of 13 MiB a million times": (
        tuple_of(b"h\0", LEFT, text(13 << 20) + b"q\0"), ["512 MiB"],
    ),
    "an array of a MiB a million times": (tuple_of(b"h\x09", LEFT, ARRAY + b"q\x09"), ["512 MiB"]),
    "a text encoded a million times": (
        tuple_of(b"h\0h\2h\1\x86R", 1 << 17, ENCODE), ["16 MiB of bytes"],
    ),
    "deep": (b"\x80\2" + b"]" * (LEFT // 2) + b"a" * (LEFT // 2 - 1) + b".", ["64 deep"]),
    "deep tuples": (b"\x80\2N" + b"\x85" * LEFT + b".", ["64 deep"]),
    "deep in steps": (
        tuple_of(b"q\0]h\0a", LEFT // 4, b"]"), ["64 deep"],
    ),
    "a deep key": (b"\x80\2}N" + b"\x85" * LEFT + b"Ns.", ["key"]),
    "many steps": (b"\x80\2" + b"]" * (MOST_STEPS + 1), [f"{MOST_STEPS} steps"]),
    "many marks": (b"\x80\2" + b"(" * LEFT + b".", ["damaged"]),
    "many lists": (then_refused(b"]", LEFT), ["numpy.ndarray itself"]),
    "many dicts of one": (then_refused(b"}K\0Ns", LEFT // 4), ["numpy.ndarray itself"]),
    "many tuples of one": (then_refused(b"N\x85", LEFT // 2), ["numpy.ndarray itself"]),
    "many floats": (then_refused(b"G12345678", LEFT), ["numpy.ndarray itself"]),
    "many memos": (
        then_refused(b"", 1, MANY_MEMOS),
        ["numpy.ndarray itself"],
    ),
    "many names": (b"\x80\2" + b"cnumpy\nndarray\n" * LEFT, ["steps"]),
    "many calls": (
        then_refused(b"h\0)R", LEFT // 4, b"ccollections\nOrderedDict\nq\0"), ["steps"],
    ),
    "many values": (
        b"\x80\2](](" + b"N" * 1000 + b"eq\0" + b"h\0" * 2000 + b"e.", [f"{MOST_VALUES} values"],
    ),
    "large": (b"\x80\2" + text(LARGEST_PICKLE) + b".", ["more than 16 MiB"]),
}  # fmt: skip
IMPORTS = "from torch_samples import read_npy"


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", BOMBS)
def test_bombs_are_refused_soon(kind, tmp_path):
    data, parts = BOMBS[kind]
    wrapped = Assembler().pickle(object_array(Raw(data[2:-1])))
    path = tmp_path / "file.npy"
    path.write_bytes(npy_of_pickle(wrapped if data.endswith(b".") else data))
    said = refusal("read_npy", path, IMPORTS)
    assert all(part in said for part in parts), said


def object_array(content):
    """A 0-d array of one object, as numpy.save pickles it."""
    return array_of(dtype_of("O8", "|"), (), [content])


def test_what_is_just_allowed():
    nested = []
    for _ in range(DEEPEST - 1):
        nested = [nested]
    assert load(pickle.dumps(nested, 4)) == nested
    with refused("deep"):
        load(pickle.dumps([nested], 4))
    with refused("deep"):
        load(pickle.dumps([[nested[0]], nested, [nested]], 4))
    many = [None] * (LEFT - LEFT // 400)
    assert load(pickle.dumps(many, 4)) == many


# ---------------------------------------------------------------------------------------------
# NumPy's files
# ---------------------------------------------------------------------------------------------


def npy_of(value, protocol):
    return npy_of_pickle(pickle.dumps(np.array(value, object), protocol))


DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 >i8 >f4"


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", DTYPES.split())
def test_arrays_come_back(protocol, dtype):
    values = np.arange(-12, 12).reshape(2, 3, 4) % 5
    arrays = [values.astype(dtype), np.asfortranarray(values.astype(dtype)), values[0, :, 1:3]]
    arrays += [np.zeros(0, dtype), np.zeros((3, 0, 2), dtype), np.array(3, dtype)]
    found = read_pickled_npy(io.BytesIO(npy_of({"arrays": arrays, "twice": arrays}, protocol)))
    assert_same(found["arrays"], arrays, dtype)
    assert found["twice"][0] is found["arrays"][0]


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numbers_of_numpy_are_numbers(protocol):
    value = {"a": np.float32(0.5), "b": np.int64(-3), "c": np.bool_(True), "d": np.array(7)}
    found = read_pickled_npy(io.BytesIO(npy_of(value, protocol)))
    assert found == {"a": 0.5, "b": -3, "c": True, "d": 7}
    assert [type(part) for part in found.values()] == [float, int, bool, np.ndarray]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_names_of_either_version_are_read(core):
    data = npy_of({"a": np.arange(3), "b": np.float64(2)}, 4)
    ours = "numpy._core" if int(np.__version__[0]) > 1 else "numpy.core"
    assert text_4(f"{ours}.multiarray") in data
    changed = data.replace(text_4(f"{ours}.multiarray"), text_4(f"{core}.multiarray"))
    found = read_pickled_npy(io.BytesIO(changed))
    assert_same([found["a"]], [np.arange(3)], core)


def text_4(text):
    """A short text in protocol 4."""
    return bytes([0x8C, len(text)]) + text.encode()


I8 = dtype_of("i8")
B16 = bytes(16)
RECONSTRUCT = Name("numpy.core.multiarray", "_reconstruct")
SCALAR = Name("numpy.core.multiarray", "scalar")
BAD_ARRAYS = {
    "fewer bytes": (array_of(I8, (3,), B16), ["(3,)", "16 bytes"]),
    "more bytes": (array_of(I8, (), B16), ["()", "16 bytes"]),
    "a huge shape": (array_of(I8, (2**40, 2**40), B16), ["16 bytes"]),
    "a huge empty shape": (array_of(I8, (0, 2**40), b""), ["not read"]),
    "a negative shape": (array_of(I8, (-2,), B16), ["not read"]),
    "a list as a shape": (array_of(I8, [2], B16), ["not read"]),
    "a shape of bools": (array_of(I8, (True, 2), B16), ["not read"]),
    "many axes": (array_of(I8, (2, *[1] * 8), B16), ["not read"]),
    "a text as data": (array_of(I8, (2,), "x" * 16), ["not read"]),
    "objects": (array_of(dtype_of("O8"), (2,), [1, 2]), ["Python objects"]),
    "an object": (array_of(dtype_of("O8"), (), [1]), ["without numbers"]),
    "objects as bytes": (array_of(dtype_of("O8"), (2,), B16), ["Python objects"]),
    "texts": (array_of(dtype_of("U2"), (2,), B16), ["'U2'"]),
    "complex": (array_of(dtype_of("c16"), (1,), B16), ["'c16'"]),
    "dates": (array_of(dtype_of("M8"), (2,), B16), ["'M8'"]),
    "void": (array_of(dtype_of("V8"), (2,), B16), ["'V8'"]),
    "another order": (array_of(dtype_of("i8", "="), (2,), B16), ["dtype in a form"]),
    "an order of a list": (array_of(dtype_of("i8", []), (2,), B16), ["dtype in a form"]),
    "a subclass": (I8._replace(function=RECONSTRUCT, arguments=(I8.function, (), b"b")), ["kind"]),
    "not built": (array_of(I8, (2,), B16)._replace(state=None), ["without numbers"]),
    "no state": (array_of(I8, (2,), B16)._replace(state=(1, 2)), ["not read"]),
    "no dtype": (array_of("i8", (2,), B16), ["not read"]),
    "a bare dtype": (array_of(I8._replace(state=None), (2,), B16), ["byte order"]),
    "a dtype as a value": (I8, ["dtype itself"]),
    "odd bools": (array_of(dtype_of("b1", "|"), (2,), b"\1\2"), ["neither 0 nor 1"]),
    "bytes of more": (Call(Name("_codecs", "encode"), ("a", "rot13")), ["_codecs.encode"]),
    "bytes of a list": (Call(Name("_codecs", "encode"), ([], "latin1")), ["_codecs.encode"]),
    "wide bytes": (Call(Name("_codecs", "encode"), ("\u4e00", "latin1")), ["encode"]),
    "a scalar of more": (Call(SCALAR, (I8, B16)), ["16 bytes"]),
    "a scalar of an object": (Call(SCALAR, (dtype_of("O8"), bytes(8))), ["object"]),
    "another order of axes": (
        Call(Name("numpy.core.numeric", "_frombuffer"), (B16, I8, (2,), "K")), ["order"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_bad_arrays_are_refused(kind):
    call, parts = BAD_ARRAYS[kind]
    data = Assembler().pickle(object_array({"logical_count": call}))
    with refused(*parts):
        read_pickled_npy(io.BytesIO(npy_of_pickle(data)))


def test_only_a_single_object_is_read():
    for values in [np.arange(3), np.array([{}, {}]), np.array(3.0)]:
        file = io.BytesIO()
        np.save(file, values, allow_pickle=True)
        file.seek(0)
        with refused("single pickled object"):
            read_pickled_npy(file)
    for value in [{}, np.arange(3), array_of(I8, (2,), B16)]:
        data = Assembler().pickle(value) if isinstance(value, Call) else pickle.dumps(value, 4)
        with refused("its pickle does not hold an array"):
            read_pickled_npy(io.BytesIO(npy_of_pickle(data)))
    with refused("followed"):
        read_pickled_npy(io.BytesIO(npy_of({}, 4) + b"x"))
