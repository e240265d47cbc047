"""Writes that are whole or not at all, and what killed ones leave behind."""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import PACKAGE

from eplb_np._files import atomic
from eplb_np._files.atomic import is_temporary, write_atomically

HOUR = 3600
STRAY = ".plan.json.0123456789abcdef.eplb_np-tmp"
needs_modes = pytest.mark.skipif(os.name == "nt", reason="this system has no such modes")


def write(path, content=b"new", **options) -> None:
    write_atomically(path, lambda file: file.write(content), **options)


def age(path: Path, seconds: float) -> Path:
    then = time.time() - seconds
    os.utime(path, (then, then), follow_symlinks=False)
    return path


def test_temporary_files_are_recognisable(tmp_path) -> None:
    seen = []

    def look(file) -> None:
        seen.extend(path.name for path in tmp_path.iterdir())

    write_atomically(tmp_path / "plan.json", look)
    assert len(seen) == 1
    assert re.fullmatch(r"\.plan\.json\.[0-9a-f]{16}\.eplb_np-tmp", seen[0])
    assert is_temporary(seen[0])
    assert not is_temporary("plan.json")


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGKILL"])
def test_what_a_killed_process_left_is_removed_an_hour_later(sent, tmp_path) -> None:
    path = tmp_path / "plan.json"
    script = (
        "import sys, time\n"
        "from eplb_np._files.atomic import write_atomically\n"
        "write_atomically(sys.argv[1], lambda file: (print('writing', flush=True), time.sleep(60)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout.readline().strip() == b"writing"
        process.send_signal(getattr(signal, sent))
    (stray,) = tmp_path.iterdir()
    write(path)
    assert set(tmp_path.iterdir()) == {stray, path}  # it might still be written
    age(stray, HOUR + 60)
    write(path)
    assert set(tmp_path.iterdir()) == {path}


def test_only_what_is_old_and_ours_is_removed(tmp_path) -> None:
    path = tmp_path / "plan.json"
    names = (
        STRAY.replace("plan", "other"), STRAY + "~", STRAY.replace("0123", "xyz0"),
        STRAY[1:], ".plan.json", "plan.json.old",
    )  # fmt: skip
    others = [tmp_path / name for name in names]
    for other in others:
        other.touch()
    others += [tmp_path / STRAY.replace("0123", f"{i:04}") for i in (1, 2)]
    others[-1].symlink_to(path)
    others[-2].mkdir()
    for other in others:
        age(other, 2 * HOUR)
    others.append(tmp_path / STRAY.replace("0123", "0003"))
    others[-1].touch()
    age(others[-1], 0.9 * HOUR)
    (tmp_path / STRAY).touch()
    age(tmp_path / STRAY, 2 * HOUR)
    write(path)
    assert set(tmp_path.iterdir()) == {path, *others}


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)
def test_files_of_other_users_are_left(tmp_path) -> None:
    (tmp_path / STRAY).touch()
    age(tmp_path / STRAY, 2 * HOUR)
    os.chown(tmp_path / STRAY, 65534, -1)
    write(tmp_path / "plan.json")
    assert (tmp_path / STRAY).exists()


def test_a_folder_that_cannot_be_listed_can_be_written_to(tmp_path, monkeypatch) -> None:
    def refuse(*args):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(atomic.os, "scandir", refuse)
    write(tmp_path / "plan.json")
    assert (tmp_path / "plan.json").read_bytes() == b"new"


@pytest.mark.parametrize("length", [200, 240, 255])
def test_names_may_be_as_long_as_the_system_allows(length, tmp_path) -> None:
    path = tmp_path / ("é" + (length - 2) * "x")
    left = []

    def leave(file) -> None:
        (temporary,) = tmp_path.iterdir()
        left.append(temporary)
        os.link(temporary, temporary.with_name("kept"))

    write_atomically(path, leave)
    (tmp_path / "kept").rename(left[0])  # as if it had been killed
    age(left[0], 2 * HOUR)
    write(path)
    assert list(tmp_path.iterdir()) == [path]


@needs_modes
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
@pytest.mark.parametrize("mode", [None, 0o600, 0o640, 0o666, 0o444])
def test_modes(mode, umask, tmp_path) -> None:
    path = tmp_path / "file"
    before = os.umask(umask)
    try:
        write(path, mode=mode)
        write(path, mode=mode)
    finally:
        os.umask(before)
    expected = 0o666 & ~umask if mode is None else mode
    assert stat.S_IMODE(path.stat().st_mode) == expected


@needs_modes
def test_nobody_else_reads_a_private_file_while_it_is_written(tmp_path) -> None:
    modes = []
    before = os.umask(0)
    try:
        write_atomically(
            tmp_path / "file", lambda file: modes.append(os.fstat(file.fileno()).st_mode), 0o600
        )
    finally:
        os.umask(before)
    assert [stat.S_IMODE(mode) for mode in modes] == [0o600]


@needs_modes
def test_a_file_in_an_open_folder_stays_in_it(tmp_path) -> None:
    """Even if another folder takes its name meanwhile."""
    (tmp_path / "folder").mkdir()
    descriptor = os.open(tmp_path / "folder", os.O_RDONLY)
    try:
        (tmp_path / "folder").rename(tmp_path / "moved")
        (tmp_path / "folder").mkdir()
        write("file", folder=descriptor)
        with pytest.raises(ZeroDivisionError):
            write_atomically("file", lambda file: 1 / 0, folder=descriptor)
    finally:
        os.close(descriptor)
    assert [path.name for path in (tmp_path / "moved").iterdir()] == ["file"]
    assert not any((tmp_path / "folder").iterdir())
