"""Files that gzip has packed: unpacked within bounds, or refused."""

import gzip
import io
import zlib

import numpy as np
import pytest
from support import output_of, refused

from eplb_np._files import gzip_files
from eplb_np._files.gzip_files import unpacked
from eplb_np._files.reading import reading
from eplb_np.io import read_loads

MIB = 1 << 20
TEXT = b"5,3\n1,7\n"
PACKED = gzip.compress(TEXT)


def content_of(packed):
    return unpacked(io.BytesIO(packed)).read()


def saved(save=np.save):
    file = io.BytesIO()
    save(file, np.array([[5, 3], [1, 7]]))
    return file.getvalue()


SOUND = {
    "one member": PACKED,
    "several members": gzip.compress(TEXT[:3]) + gzip.compress(TEXT[3:]),
    "an empty member": gzip.compress(b"") + PACKED + gzip.compress(b""),
    "stored": gzip.compress(TEXT, 0),
    "with a name": PACKED[:3] + b"\x08" + PACKED[4:10] + b"loads.csv\0" + PACKED[10:],
}


@pytest.mark.parametrize("kind", SOUND)
@pytest.mark.parametrize("piece", [1, 7, 1 << 16])
def test_a_packed_file_is_unpacked(kind, piece, monkeypatch):
    monkeypatch.setattr(gzip_files, "PIECE", piece)
    monkeypatch.setattr(gzip_files, "ROOM", piece)
    assert content_of(SOUND[kind]) == TEXT


@pytest.mark.parametrize("content", [TEXT, b"", b"\x1f", b"\x1f\x8c" + TEXT, saved()])
def test_another_file_is_returned_as_it_is(content):
    file = io.BytesIO(content)
    assert unpacked(file) is file
    assert file.tell() == 0


@pytest.mark.parametrize(
    "content",
    [TEXT, b'{"logical_count": [[5, 3], [1, 7]]}', b"[[5, 3], [1, 7]]", saved(), saved(np.savez)],
    ids=["text", "object", "list", "npy", "npz"],
)
def test_loads_of_any_container_may_be_packed(content, tmp_path):
    path = tmp_path / "loads"
    path.write_bytes(gzip.compress(content))
    assert read_loads(path).load.tolist() == [[5, 3], [1, 7]]


REFUSED = {
    "cut in its data": (PACKED[:-12], ["ends before its data does"]),
    "cut in its checksum": (PACKED[:-6], ["ends before its data does"]),
    "cut in its header": (PACKED[:5], ["ends before its data does"]),
    "a second member that is cut": (PACKED + PACKED[:15], ["ends before its data does"]),
    "followed by text": (PACKED + b"more", ["followed by more data"]),
    "followed by zeros": (PACKED + bytes(512), ["followed by more data"]),
    "another checksum": (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], ["incorrect data check"]),
    "another length": (PACKED[:-4] + b"\0\0\0\0", ["incorrect length check"]),
    "another method": (PACKED[:2] + b"\x07" + PACKED[3:], ["unknown compression method"]),
    "packed twice": (gzip.compress(PACKED), ["packed by gzip twice", "unpack it once"]),
    "many members": (gzip.compress(b"") * 5000, ["more than 4096 members"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_damaged_file_is_refused(kind):
    packed, parts = REFUSED[kind]
    with refused("a file: ", *parts), reading("a file"):
        content_of(packed)


@pytest.mark.parametrize(
    "packed", [gzip.compress(b""), gzip.compress(b"") * 2], ids=["one member", "two members"]
)
def test_an_empty_file_is_empty(packed, tmp_path):
    assert content_of(packed) == b""
    path = tmp_path / "loads.gz"
    path.write_bytes(packed)
    with refused("an empty file", "no known format"):
        read_loads(path)


READ = """
import resource, time
from pathlib import Path
from eplb_np._files.gzip_files import unpacked
from eplb_np._files.reading import open_regular, reading

room = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
start = time.process_time()
try:
    with reading({path!r}), open_regular({path!r}) as file:
        print("read", len(unpacked(file).read()))
except ValueError as error:
    print("refused:", error)
assert time.process_time() - start < 2
"""


def bomb(megabytes):
    """Zeros, in a thousandth of their size."""
    packer = zlib.compressobj(9, zlib.DEFLATED, gzip_files.GZIP)
    block = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    more = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block + more * (megabytes - 1) + packer.flush()  # its checksum is wrong


ENDLESS = {
    "10 GB of zeros": (lambda: bomb(10_000), "unpacks to more than the 128 MiB"),
    "10 GB of zeros in members": (
        lambda: gzip.compress(bytes(4 * MIB)) * 2500, "unpacks to more than the 128 MiB"
    ),
    "zeros that are just allowed": (lambda: bomb(128), "incorrect data check"),
    "empty members": (lambda: gzip.compress(b"") * (6 * MIB), "more than 4096 members"),
    "a long name": (lambda: PACKED[:3] + b"\x08" + PACKED[4:10] + b"x" * (120 * MIB), "ends"),
    "empty blocks": (lambda: PACKED[:10] + b"\0\0\0\xff\xff" * (24 * MIB), "ends before"),
    "more than can be": (lambda: PACKED[:10] + bytes(129 * MIB), "more than 128 MiB"),
}  # fmt: skip


@pytest.mark.same_without_jit
@pytest.mark.parametrize("kind", ENDLESS)
def test_what_unpacks_to_too_much_is_refused_soon(kind, tmp_path):
    make, part = ENDLESS[kind]
    path = tmp_path / "loads.gz"
    path.write_bytes(make())
    said = output_of(READ.format(path=str(path)))
    assert said.startswith("refused:"), said
    assert part in said
