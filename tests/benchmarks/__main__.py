"""`make bench`: measure every part in a process of its own and write results/bench/PART.json (PART_fp32.json on a CPU
without bf16 arithmetic, PART_cuda.json on a GPU).

PYTHONPATH=tests python -m benchmarks [injection|training|evaluation ...] [--device auto|cpu|cuda] [--rounds N]
"""

import argparse
import json
import os
import subprocess
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
from .clock import by_turns, peak_mb
from .parts import ERROR_MODELS, H200_BF16, PARTS, RATES, Comparison, stages


def path_of(part: str, device: torch.device) -> Path:
    """Where a part's results lie: each kind of hardware has a file of its own."""
    kind = "_cuda" if device.type == "cuda" else "" if precision(device) == "bf16" else "_fp32"
    return results() / "bench" / f"{part}{kind}.json"


def say(text: str) -> None:
    print(text, flush=True)


def alone(part: str, comparison: str, side: str, arguments: argparse.Namespace) -> dict:
    """Peak memory of one side that works once, by itself in a process of its own."""
    options = ["--device", arguments.device, "--threads", str(arguments.threads), "--alone", comparison, side]
    command = [sys.executable, "-m", __spec__.parent, part, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_alone(comparison: Comparison, side: str, device: torch.device) -> dict:
    imported = peak_mb()
    call = comparison.builders[side]()
    call(0)
    found = {"imported_mb": round(imported), "peak_mb": round(peak_mb())}
    if device.type == "cuda":
        found["device_mb"] = round(torch.cuda.max_memory_allocated(device) / 1e6)
    return found


def compared(comparison: Comparison, device: torch.device, rounds: int | None) -> dict:
    """Time a comparison, say what came out, and return it as a record holds it."""
    rounds = rounds or comparison.rounds
    sides = {name: build() for name, build in comparison.builders.items()}
    say(f"  {comparison.name}: {', '.join(sides)}; up to {rounds} rounds, {comparison.seconds:g} s")
    with progress_bar((rounds + 1) * len(sides), f"  {comparison.name}", unit="call") as progress:
        found = by_turns(sides, rounds, comparison.seconds, device, progress.update)
    facts = comparison.facts(sides)
    first = np.median(next(iter(found.values())))
    for name, seconds in found.items():
        low, middle, high = 1000 * np.percentile(seconds, [25, 50, 75])
        changed = f"; {100 * facts['changed_bits'][name]:.3f} % of bits changed" if "changed_bits" in facts else ""
        say(f"    {name:28} {middle:10.1f} ms ({low:.1f} to {high:.1f}); x {middle / 1000 / first:.2f}{changed}")
    for name, value in facts.items():
        if name != "changed_bits":
            say(f"    {name.replace('_', ' ')}: {value:.2g}")
    if "flops" in comparison.work and device.type == "cuda":
        speed = comparison.work["model_images"] / first
        facts["model_images_per_second"] = speed
        facts["share_of_h200_bf16_peak"] = share = comparison.work["flops"] / first / H200_BF16
        say(f"    ours: {speed:,.0f} model-images/s, {100 * share:.1f} % of an H200's dense bf16 peak")
    return {"name": comparison.name, "work": comparison.work, "seconds": found, **facts}


def measure(part: str, arguments: argparse.Namespace) -> None:
    """Measure one part in this process and write its record."""
    device = choose_device(arguments.device)
    began = time.monotonic()
    say(f"{part}: on {provenance(device)['device']}, threads: {torch.get_num_threads()}")
    comparisons = PARTS[part](device)
    found = [compared(comparison, device, arguments.rounds) for comparison in comparisons]
    record = {"part": part, "comparisons": found}
    if part == "injection":
        if not rivals.has_mrfi():
            say("  MRFI is not installed: its comparison is left out (`make bench` installs it from PyPI)")
        say("  ours by stage: draw, apply, undo, at five rates")
        rounds = min(arguments.rounds or 5, 5)
        with progress_bar((rounds + 1) * len(RATES) * len(ERROR_MODELS), "  ours by stage", unit="pattern") as progress:
            record["stages"] = stages(device, progress.update, rounds=rounds)
        for row in record["stages"]:
            parts = ", ".join(f"{stage} {1000 * np.median(row[stage]):.1f}" for stage in ("draw", "apply", "undo"))
            say(f"    {row['error_model']:12} {100 * row['rate']:5g} %: {parts} ms")
    record["peak_mb"] = round(peak_mb())
    say("  peak memory, each side alone in a process")
    last = comparisons[-1]
    for side in last.builders:
        found[-1].setdefault("memory", {})[side] = alone(part, last.name, side, arguments)
        say(f"    {side:28} {found[-1]['memory'][side]['peak_mb']:,} MB")
    record["provenance"] = provenance(device, command="make bench")
    path = path_of(part, device)
    write_whole(path, (json.dumps({"version": 1, **record}, indent=1, allow_nan=False) + "\n").encode())
    say(f"  {time.monotonic() - began:.0f} s; written to {os.path.relpath(path, ROOT)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all when none is given")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, help="at most so many rounds (fewer for a quick look)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {unknown.pop()!r}; allowed: {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as a sweep does
    if arguments.alone:
        device = choose_device(arguments.device)
        (chosen,) = (c for c in PARTS[arguments.parts[0]](device) if c.name == arguments.alone[0])
        print(json.dumps(measure_alone(chosen, arguments.alone[1], device)))
        return 0
    if arguments.one:
        measure(arguments.parts[0], arguments)
        return 0
    began, failed = time.monotonic(), []
    options = ["--one", "--device", arguments.device, "--threads", str(arguments.threads)]
    options += ["--rounds", str(arguments.rounds)] if arguments.rounds else []
    for part in arguments.parts or PARTS:
        if subprocess.run([sys.executable, "-m", __spec__.parent, part, *options]).returncode:
            failed.append(part)
    say(f"bench: {time.monotonic() - began:.0f} s" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
