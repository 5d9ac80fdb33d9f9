"""Files are written whole or not at all: into a part beside the file, which takes its place once it is on the disk."""

import contextlib
import errno
import itertools
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from nflib.names import UserError

MACHINE, PARTS = socket.gethostname(), itertools.count()
DAY = 86400


def part_suffix() -> str:
    """How the name of a part ends: process, number and machine, so that no two writers share one."""
    return f".{os.getpid()}-{next(PARTS)}@{MACHINE}.part"


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[Path]:
    """Give the path of an empty part to write into, which replaces `path` after the body or, after a failure, goes.

    Whatever fails, `path` is the old file or the new one, whole.  Its mode follows the umask, whatever the body does.
    np.savez must be given the part as an open file: it adds an ending to names.  Raises UserError in one line.
    """
    target = Path(os.path.realpath(path))
    part = target.with_name(target.name + part_suffix())
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.touch(0o666)
        mode = part.stat().st_mode
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        part.chmod(mode)
        os.replace(part, target)
        _sync_folder(target.parent)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, RuntimeError):  # torch's own word on a full disk is of positions in a stream
            reason = f"the disk may be full ({reason})"
        raise UserError(f"{path} could not be written: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file whole or not at all, text as UTF-8 with the line ends that it has; UserError in one line."""
    with writing(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def sweep_parts(folder: str | os.PathLike, below: bool = True) -> None:
    """Remove the parts that dead processes left in `folder` and, if asked, below it.

    Those of this machine's processes go at once, others (no machine sees another's processes) after a day.
    """
    for where, folders, files in os.walk(folder):
        for part in (Path(where) / name for name in folders + files if name.endswith(".part")):
            with contextlib.suppress(OSError):  # it went meanwhile, or belongs to somebody else
                if _abandoned(part):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
        if not below:
            break


def _abandoned(part: Path) -> bool:
    found = re.search(r"\.(\d{1,9})(?:-\d+@(.+))?\.part$", part.name)
    if not found:
        return False
    if time.time() - part.stat().st_mtime > DAY:
        return True
    if found[2] not in (None, MACHINE):
        return False
    try:
        os.kill(int(found[1]), 0)  # asks only whether the process is there
    except ProcessLookupError:
        return True
    return False


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a loss of power, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)
