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
    """Give the path of an empty part for the body to write into (np.savez takes it as an open file: it adds endings to names).

    After the body the part replaces `path`; after any failure it is removed and `path` is as before.  The file's mode
    follows the umask, whatever the body does.  Raises UserError in one line where the body or the disk fails.
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
    except (OSError, RuntimeError, SafetensorError) as error:  # torch tells a full disk as a RuntimeError
        reason = getattr(error, "strerror", None) or (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path} could not be written: {reason}") from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file whole or not at all, text as UTF-8 with its line ends as they are; UserError in one line on failure."""
    with writing(path) as part:
        part.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


def sweep_parts(folder: str | os.PathLike) -> None:
    """Remove the parts below `folder` that dead processes left: of this machine at once, of any other after a day."""
    for part in Path(folder).rglob("*.part"):
        with contextlib.suppress(OSError):  # it went meanwhile, or belongs to somebody else
            if _abandoned(part):
                shutil.rmtree(part) if part.is_dir() else part.unlink()


def _abandoned(part: Path) -> bool:
    found = re.search(r"\.(\d+)(?:-\d+@(.+))?\.part$", part.name)
    if not found or time.time() - part.stat().st_mtime > DAY:
        return bool(found)
    try:
        return found[2] in (None, MACHINE) and bool(os.kill(int(found[1]), 0))
    except ProcessLookupError:
        return True
    except OverflowError:
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
