"""A file is the old one or the new one, whole, whatever fails while it is written; nothing is left beside it."""

import itertools
import os
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from nflib import files
from nflib.files import sweep_parts, write_whole, writing
from nflib.names import ROOT, UserError

OLD, NEW = b"the old content", b"the new content, which is longer " * 4000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shelf" / "record.json"


def left(path) -> list[str]:
    return sorted(os.listdir(path.parent)) if path.parent.exists() else []


def test_text_is_utf_8_with_its_own_line_ends_and_bytes_are_bytes(path):
    for content, stored in (("ä→\n\r\n", "ä→\n\r\n".encode()), (NEW, NEW), (b"", b"")):
        write_whole(str(path), content)
        assert path.read_bytes() == stored and left(path) == ["record.json"]


WRITERS = {
    "write_whole": lambda path: write_whole(path, NEW),
    "torch": lambda path: _by(path, lambda part: torch.save(torch.zeros(9999), part)),
    "safetensors": lambda path: _by(path, lambda part: save_file({"a": torch.zeros(9999)}, part)),
    "numpy": lambda path: _by(path, lambda part: np.save(part.open("wb"), np.zeros(9999))),
}


def _by(path, write) -> None:
    with writing(path) as part:
        write(part)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_the_mode_follows_the_umask_for_every_writer(writer, mask, path):
    before = os.umask(mask)
    try:
        WRITERS[writer](path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask and left(path) == ["record.json"]


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_fills_up_leaves_the_old_file(writer, there, path, refused):
    """The limit on a file's size stands in for the full disk: every writer meets it in the middle of its work."""
    if there:
        write_whole(path, OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with refused("record.json could not be written: "):
            WRITERS[writer](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert left(path) == (["record.json"] if there else []) and (not there or path.read_bytes() == OLD)


@pytest.mark.parametrize("there", [False, True])
def test_every_call_to_the_system_may_fail_once(there, path, monkeypatch):
    for fails_at in range(20):
        shutil.rmtree(path.parent, ignore_errors=True)
        if there:
            write_whole(path, OLD)
        calls = itertools.count()
        with monkeypatch.context() as patch:
            for name in ("mkdir", "open", "stat", "fsync", "chmod", "replace"):

                def failing(*given, usual=getattr(os, name), **named):
                    if next(calls) == fails_at:
                        raise OSError(5, "Input/output error")
                    return usual(*given, **named)

                patch.setattr(os, name, failing)
            try:
                write_whole(path, NEW)
            except UserError as error:
                assert str(path) in str(error) and "Input/output error" in str(error) and "\n" not in str(error)
        assert left(path) in ([], ["record.json"]) and (path.exists() or not there)
        assert not path.exists() or path.read_bytes() in ((OLD, NEW) if there else (NEW,))
        if next(calls) <= fails_at:
            break
    assert fails_at > 5 and path.read_bytes() == NEW


def test_an_interruption_or_a_mistake_in_the_body_leaves_no_part(path):
    for error in (KeyboardInterrupt, TypeError):
        with pytest.raises(error), writing(path) as part:
            part.write_bytes(NEW)
            raise error
        assert not left(path)


def test_folders_and_files_may_be_links(tmp_path, path):
    path.parent.mkdir()
    (tmp_path / "link").symlink_to(path.parent)
    write_whole(tmp_path / "link" / "record.json", OLD)
    (path.parent / "also.json").symlink_to(path)
    write_whole(path.parent / "also.json", NEW)
    assert path.read_bytes() == NEW and (path.parent / "also.json").is_symlink() and (tmp_path / "link").is_symlink()


def test_writers_at_once_do_not_share_a_part(path):
    with writing(path) as one, writing(path) as other:
        assert one != other and {one.parent, other.parent} == {path.parent} and one.suffix == other.suffix == ".part"
        one.write_bytes(NEW)
        other.write_bytes(OLD)
    assert path.read_bytes() == NEW and left(path) == ["record.json"]  # the first replaces last


def test_parts_of_dead_processes_are_swept_and_no_others(path):
    """A process is killed while it writes; one of another machine may yet live, unless its part is a day old."""
    code = "import os, sys; from nflib.files import writing\nwith writing(sys.argv[1]): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT)
    (dead,) = left(path)
    shelf, process = path.parent, dead.split(".")[-2].split("-")[0]
    kept = [f"a.{process}-0@elsewhere.part", f"a.{os.getpid()}-0@{files.MACHINE}.part", "notes.part", f"a.{process}"]
    for name in (*kept, f"b.{process}.part", f"b.{process}-0@elsewhere.part"):
        (shelf / name).write_bytes(b"")
    yesterday = time.time() - 2 * files.DAY
    os.utime(shelf / f"b.{process}-0@elsewhere.part", (yesterday, yesterday))
    (shelf / f"a folder.{process}-1@{files.MACHINE}.part" / "below").mkdir(parents=True)
    sweep_parts(shelf.parent, below=False)
    assert dead in left(path)
    sweep_parts(shelf.parent)
    assert left(path) == sorted(kept)
    sweep_parts(shelf / "nowhere")
