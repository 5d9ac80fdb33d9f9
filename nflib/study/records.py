"""Records: one JSON file a measured cell, written whole or not at all by what checks it when it is read; provenance."""

import datetime
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from nflib.files import write_whole
from nflib.names import PROFILES, ROOT, UserError, choose
from nflib.study.cells import Cell, as_json, canonical, cell_of, digest_of
from nflib.training import precision

SOURCES, MANIFEST = ROOT / "nflib", "manifest.sha256"  # the manifest lies among the results


def results() -> Path:
    """Where records, tables and figures lie: `NFLIB_RESULTS` (from where the user stands), otherwise results/."""
    return Path(os.environ.get("NFLIB_RESULTS") or ROOT / "results").resolve()


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be written into `folder`, which is made where it is missing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"folder {folder} cannot be written to: {error.strerror}") from None


def checksum(record: dict) -> str:
    """sha256 of the canonical JSON of a record without its own entry "sha256"."""
    return hashlib.sha256(canonical({k: v for k, v in record.items() if k != "sha256"}).encode()).hexdigest()


def _check(record: dict, path: Path, attachment: bytes | None) -> None:
    """Raise ValueError or KeyError unless `record` is whole and belongs at `path`, with the bytes beside it."""
    if record["sha256"] != checksum(record):
        raise ValueError("its checksum does not match its content")
    cell, metrics = cell_of(record["cell"]), record["metrics"]
    if as_json(cell) != record["cell"]:
        raise ValueError("its cell is not in canonical form")
    if path.stem != cell.digest or path.parent.name != cell.kind:
        raise ValueError("it does not lie where its cell belongs")
    if "diverged" not in metrics and ("perturbed" in metrics or cell.kind in ("accuracy", "validation", "mitigation", "shift")):
        accuracies, patterns = [metrics["clean"], *metrics["perturbed"]], cell.patterns
        if len(accuracies) != patterns + 1 or not all(0 <= a <= 100 for a in accuracies):
            raise ValueError("its accuracies are incomplete or out of range")
        if (images := metrics.get("images")) and any(abs(a * images / 100 - round(a * images / 100)) > 1e-6 for a in accuracies):
            raise ValueError(f"its accuracies are not those of {images} images")
    if (attachment and hashlib.sha256(attachment).hexdigest()) != record.get("attachment"):
        raise ValueError("the .npz beside it is not the one that it names")
    record["provenance"]["commit"]


class Store:
    """Records of one profile: PROFILE/KIND/DIGEST.json, and arrays that belong to one beside it as DIGEST.npz."""

    def __init__(self, profile: str, root: Path | None = None):
        self.profile = choose("profile", profile, PROFILES)
        self.root = (root or results()) / "records" / profile

    def path(self, cell: Cell) -> Path:
        return self.root / cell.kind / f"{cell.digest}.json"

    def has(self, cell: Cell) -> bool:
        return self.path(cell).exists()

    def write(self, cell: Cell, metrics: dict, provenance: dict, arrays: dict[str, np.ndarray] | None = None) -> Path:
        """Store a record; UserError if there is one already (nothing is overwritten), if it is not whole, or the disk is full."""
        path, packed = self.path(cell), io.BytesIO()
        if path.exists():
            raise UserError(f"record {path} is there already; move it away to measure again")
        record = {"version": 2, "cell": as_json(cell), "metrics": metrics, "provenance": provenance}
        if arrays:
            np.savez_compressed(packed, **arrays)
            record["attachment"] = hashlib.sha256(packed.getvalue()).hexdigest()
        try:
            text = json.dumps({**record, "sha256": checksum(record)}, indent=1, sort_keys=True, allow_nan=False) + "\n"
            _check(json.loads(text), path, packed.getvalue() or None)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{cell.words}: what was measured is no record: {error}") from None
        if arrays:
            write_whole(path.with_suffix(".npz"), packed.getvalue())
        write_whole(path, text)
        return path

    def read(self, path: Path) -> dict:
        """A record, checked: form, checksums, and that it lies under its cell's digest.  UserError in one line."""
        beside = path.with_suffix(".npz")
        try:
            record = json.loads(path.read_text("utf-8"))
            _check(record, path, beside.read_bytes() if beside.exists() else None)
        except OSError as error:
            raise UserError(f"record {path} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise UserError(f"record {path} is damaged: {reason}; restore it with git checkout") from None
        return record

    def arrays(self, record: dict) -> dict[str, np.ndarray]:
        """The arrays beside a record that was read."""
        with np.load(self.root / record["cell"]["kind"] / f"{digest_of(record['cell'])}.npz") as file:
            return dict(file)

    def records(self, kind: str | None = None) -> list[dict]:
        """All records (of one kind) that can be read, in the order of their digests; a damaged or foreign one is named on
        stderr and left out (`nflib check` refuses it)."""
        found = []
        for path in sorted(self.root.glob(f"{kind or '*'}/*.json")):
            try:
                found.append(self.read(path))
            except UserError as error:
                print(f"nflib: {error}; it is left out", file=sys.stderr)
        return found


def device_name(device: torch.device) -> str:
    """What computes, for provenance: the GPU's name, or the CPU's model name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def git(*words: str) -> str | None:
    """What git says of this project's own repository; None where there is none, whatever repository lies around it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    own = ["--git-dir", ROOT / ".git", "--work-tree", ROOT]
    try:
        done = subprocess.run(["git", *own, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@functools.cache
def code_digest(names: str = "*") -> str:
    """Digest of the sources that compute and measure (nflib/ and nflib/study/), or of those modules of nflib/ whose names are
    given, separated by spaces; as they were when this process first asked."""
    found = {path for name in names.split() for path in SOURCES.glob(f"{name}.py")}
    found |= set((SOURCES / "study").glob("*.py")) if names == "*" else set()
    whole = hashlib.sha256()
    for path in sorted(found):
        whole.update(path.relative_to(SOURCES).as_posix().encode() + path.read_bytes())
    return whole.hexdigest()[:16]


@functools.cache
def _code() -> dict:
    """Commit, state and digest of the computing code, as it was when this process began to measure.

    `NFLIB_COMMIT` says which commit a copy without a repository is; whether that is changed is then unknown.
    """
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--", "nflib")
    commit = commit or os.environ.get("NFLIB_COMMIT") or "unknown"
    return {"commit": commit, "dirty": None if changes is None else bool(changes), "sources": code_digest()}


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
