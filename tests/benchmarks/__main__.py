"""`make bench`: measure every part and write results/bench/PART.json (PART_fp32.json on a CPU without bf16 arithmetic,
PART_cuda.json on a GPU).

PYTHONPATH=tests python -m benchmarks [injection|training|evaluation ...] [--device auto|cpu|cuda] [--rounds N]
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from nflib.files import write_whole
from nflib.names import ROOT
from nflib.study.records import provenance, results
from nflib.study.trained import choose_device, keep_freed_memory
from nflib.training import precision, progress_bar

from . import rivals
from .clock import by_turns
from .parts import PARTS, Comparison


def path_of(part: str, device: torch.device) -> Path:
    """Where a part's results lie: each kind of hardware has a file of its own."""
    kind = "_cuda" if device.type == "cuda" else "" if precision(device) == "bf16" else "_fp32"
    return results() / "bench" / f"{part}{kind}.json"


def compared(comparison: Comparison, device: torch.device, rounds: int | None) -> dict:
    """Time a comparison, say what came out, and return it as a record holds it."""
    rounds = rounds or comparison.rounds
    sides = {name: build() for name, build in comparison.builders.items()}
    print(f"  {comparison.name}: {', '.join(sides)}; up to {rounds} rounds, {comparison.seconds:g} s", flush=True)
    with progress_bar((rounds + 1) * len(sides), f"  {comparison.name}", unit="call") as progress:
        found = by_turns(sides, rounds, comparison.seconds, device, progress.update)
    first = np.median(next(iter(found.values())))
    for name, seconds in found.items():
        low, middle, high = 1000 * np.percentile(seconds, [25, 50, 75])
        print(f"    {name:28} {middle:10.1f} ms ({low:.1f} to {high:.1f}); x {middle / 1000 / first:.2f}", flush=True)
    return {"name": comparison.name, "seconds": found}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all when none is given")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="at most so many rounds (fewer for a quick look)")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}; allowed: {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as a sweep does
    device, began = choose_device(arguments.device), time.monotonic()
    origin = provenance(device, command="make bench")
    print(f"On {origin['device']}, threads: {origin['threads']}{'' if rivals.has_mrfi() else '; MRFI is not installed'}")
    for part in arguments.parts or PARTS:
        found = [compared(comparison, device, arguments.rounds) for comparison in PARTS[part](device)]
        record = {"version": 1, "part": part, "comparisons": found, "provenance": origin}
        write_whole(path := path_of(part, device), json.dumps(record, indent=1, allow_nan=False) + "\n")
        print(f"  {time.monotonic() - began:.0f} s; written to {os.path.relpath(path, ROOT)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
