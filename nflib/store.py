"""Records: one JSON file a measured cell, written whole or not at all, checked when read; and where numbers come from."""

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from nflib.cells import Cell, canonical, digest_of, plain
from nflib.names import ROOT, UserError
from nflib.training import precision


def results() -> Path:
    """Where records, tables and figures lie: `NFLIB_RESULTS`, otherwise results/ of the checkout."""
    return Path(os.environ.get("NFLIB_RESULTS") or ROOT / "results")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be written into `folder`, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"folder {folder} cannot be written to: {error.strerror}") from None


class Store:
    """Records of one profile: PROFILE/KIND/DIGEST.json, and arrays that belong to one beside it as DIGEST.npz."""

    def __init__(self, profile: str, root: Path | None = None):
        self.profile = profile
        self.root = (root or results()) / "records" / profile

    def path(self, cell: Cell) -> Path:
        return self.root / cell.table / f"{cell.digest}.json"

    def has(self, cell: Cell) -> bool:
        return self.path(cell).exists()

    def write(self, cell: Cell, metrics: dict, provenance: dict, arrays: dict[str, np.ndarray] | None = None) -> Path:
        """Store a record; UserError if there is one already (nothing is overwritten), or the disk is full."""
        path = self.path(cell)
        if path.exists():
            raise UserError(f"record {path} is there already; delete it to measure again")
        body = {"version": 1, "cell": plain(cell), "metrics": metrics, "provenance": provenance}
        packed = io.BytesIO()
        if arrays:
            np.savez_compressed(packed, **arrays)
            body["attachment"] = hashlib.sha256(packed.getvalue()).hexdigest()
        text = json.dumps({**body, "sha256": _checksum(body)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
        try:
            if arrays:
                write_whole(path.with_suffix(".npz"), packed.getvalue())
            write_whole(path, text.encode())
        except OSError as error:
            raise UserError(f"record {path} cannot be written: {error.strerror}; stored records are untouched") from None
        return path

    def read(self, path: Path) -> dict:
        """A record, checked: form, checksums, and that it lies under its cell's digest.  UserError in one line."""
        try:
            record = json.loads(path.read_text())
            if not isinstance(record, dict):
                raise ValueError("it is no record")
            stated = record.pop("sha256")
            if stated != _checksum(record):
                raise ValueError("its checksum does not match its content")
            if path.stem != digest_of(record["cell"]) or path.parent.name != record["cell"]["table"]:
                raise ValueError("it does not lie where its cell belongs")
            if "perturbed" in record["metrics"] or path.parent.name == "accuracy":
                accuracies = [record["metrics"]["clean"], *record["metrics"]["perturbed"]]
                if not all(0 <= a <= 100 for a in accuracies) or len(accuracies) != record["cell"]["patterns"] + 1:
                    raise ValueError("its accuracies are incomplete or out of range")
            if "attachment" in record and _sha256(path.with_suffix(".npz")) != record["attachment"]:
                raise ValueError(f"{path.stem}.npz beside it is not the one that it names")
            record["provenance"]["commit"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise UserError(f"record {path} is damaged: {reason}; restore it (git checkout), or delete it to measure again") from None
        return record

    def arrays(self, record: dict) -> dict[str, np.ndarray]:
        """The arrays beside a record that was read."""
        cell = record["cell"]
        with np.load(self.root / cell["table"] / f"{digest_of(cell)}.npz") as file:
            return dict(file)

    def records(self, kind: str | None = None) -> list[dict]:
        """All records (of one kind), in the order of their digests."""
        return [self.read(path) for path in sorted(self.root.glob(f"{kind or '*'}/*.json"))]


def _checksum(body: dict) -> str:
    return hashlib.sha256(canonical(body).encode()).hexdigest()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def device_name(device: torch.device) -> str:
    """What computes, for provenance: the GPU's name, or the CPU's model name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@functools.cache
def _code() -> dict:
    """Commit and state of the computing code, as it was when this process began to measure; NFLIB_COMMIT says which commit a
    copy of the working tree is, whose own repository is missing or behind."""
    if stated := os.environ.get("NFLIB_COMMIT"):
        return {"commit": stated, "dirty": False}

    def git(*words: str) -> str | None:
        done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "nflib")
    except OSError:
        commit = changes = None
    return {"commit": commit or "unknown", "dirty": None if changes is None else bool(changes)}


def provenance(device: torch.device, **more: object) -> dict:
    """Where a number comes from: code, versions, hardware, precision, and the digests given."""
    return {
        **_code(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": importlib.metadata.version("torchvision"),  # importing it takes longer than all of nflib
        "numpy": np.__version__,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision(device),
        **more,
    }
