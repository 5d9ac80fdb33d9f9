"""Weight reads and cycles as SCALE-Sim, the simulator behind the paper's Table 6, counts them; beside closed forms.

`python -m nflib.study.simulate` runs SCALE-Sim 3.0 (the extra "simulate") on every distinct layer of the base models and
generators and stores what it says in results/simulated/scalesim.csv; everything else here reads that file.
The memory that feeds the array is simulated address by address and takes nearly all of the time; `--array` leaves it out.
"""

import argparse
import configparser
import contextlib
import functools
import importlib.metadata
import io
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from nflib import energy, generators, models
from nflib.files import write_whole
from nflib.names import UserError, choose
from nflib.study.records import provenance, results
from nflib.training import progress_bar

SIZES = (32, 224)  # pixels
# Cycles that filling and draining the array add to each of its passes: one a row and one a column, less two.
SKEW = energy.ARRAY_ROWS + energy.ARRAY_COLUMNS - 2
_BUFFERS = ("Ifmap", "Filter", "Ofmap")
CONFIG = {  # the authors' settings; CALC: a main memory that never keeps the array waiting; no layout, no sparsity
    "general": {"run_name": "run"},
    "architecture_presets": {"ArrayHeight": energy.ARRAY_ROWS, "ArrayWidth": energy.ARRAY_COLUMNS, "Dataflow": "os"}
    | {f"{name}SramSzkB": 256 for name in _BUFFERS}
    | {f"{name}Offset": 10**7 * k for k, name in enumerate(_BUFFERS)}
    | {"ReadRequestBuffer": 32, "WriteRequestBuffer": 32},
    "layout": {f"{name}CustomLayout": False for name in _BUFFERS[:2]}
    | {f"{name}SRAMBank{what}": 10 for name in _BUFFERS[:2] for what in ("Bandwidth", "Num", "Port")},
    "sparsity": {"SparsitySupport": False},
    "run_presets": {"InterfaceBandwidth": "CALC", "UseRamulatorTrace": False},
}
# Cycles of the authors' own runs at 32x32 pixels: energy_estimation_HL in IBM/energy-efficient-resilience, summed.
AUTHORS_CYCLES = {
    "ResNet18": 731_049, "ResNet50": 1_770_152, "VGG11": 345_973, "VGG16": 612_944, "VGG19": 800_237,
    "ConvL": 101_795, "ConvS": 19_193, "DeConvL": 76_150, "DeConvS": 27_932, "UNetL": 73_246, "UNetS": 38_510,
}  # fmt: skip


class Convolution(NamedTuple):
    """A layer as SCALE-Sim takes it: a convolution without padding (in_height and in_width include the border).

    kind: "conv", "linear" (1x1 on a 1x1 map), "deconv proxy" (what the authors ran for a transposed convolution) or
    "deconv phase" (one of the stride**2 convolutions that a transposed one consists of).
    """

    kind: str
    kernel: int
    cin: int
    cout: int
    in_height: int
    in_width: int
    stride: int

    @property
    def positions(self) -> int:
        """Places at which the kernel is applied; SCALE-Sim rounds up where the stride does not divide."""
        return (-(-(self.in_height - self.kernel) // self.stride) + 1) * (-(-(self.in_width - self.kernel) // self.stride) + 1)

    @property
    def reads(self) -> int:
        """Weights read, in closed form: all of them once for every 32 positions (8-bit words, "SRAM Filter Reads")."""
        return -(-self.positions // energy.ARRAY_ROWS) * self.kernel**2 * self.cin * self.cout

    @property
    def cycles(self) -> int:
        """Cycles, in closed form: a pass for 32 positions and 32 output channels takes kernel**2 * cin + 62."""
        passes = -(-self.positions // energy.ARRAY_ROWS) * -(-self.cout // energy.ARRAY_COLUMNS)
        return passes * (self.kernel**2 * self.cin + SKEW) - 1


class Simulated(NamedTuple):
    """What SCALE-Sim says of a layer: weights read, cycles in all and stalled (nan where it simulated the array alone), and
    the seconds that it took to say so."""

    reads: int
    cycles: int
    stalls: float
    seconds: float


def as_run(network: list[energy.Layer]) -> Counter[Convolution]:
    """A network's layers as the authors ran them, and how often each occurs: so all eleven entries of Table 6 come out.

    A transposed convolution is replaced by a convolution of stride 1 over its output map with a border of 1 on each side,
    whose input and output channels are swapped (the reads do not show it, the cycles do); a closing 1x1 convolution (the
    U-Nets') gets such a border, too; and SCALE-Sim rounds the map of a strided convolution up, 17x17 for 16x16.
    Source: energy_estimation_HL in IBM/energy-efficient-resilience.
    """
    found: Counter[Convolution] = Counter()
    for layer in network:
        kernel, border, stride = layer.kernel, 2 * layer.padding, layer.stride
        sides, channels = layer.given[1:], (layer.given[0], layer.result[0])
        if layer.kind == "deconv":
            sides, channels, border, stride = [side * stride for side in sides], channels[::-1], 2, 1
        elif layer is network[-1] and layer.kind == "conv" and kernel == 1:
            border = 2
        kind = "deconv proxy" if layer.kind == "deconv" else layer.kind
        found[Convolution(kind, kernel, *channels, *(side + border for side in sides), stride)] += 1
    return found


def as_is(network: list[energy.Layer]) -> Counter[Convolution]:
    """A network's layers as it applies its weights, and how often each occurs.

    A transposed convolution is stride**2 convolutions with kernels of kernel / stride pixels, each of which computes every
    stride-th row and column.  Raises ValueError if the stride does not divide the kernel.
    """
    found: Counter[Convolution] = Counter()
    for layer in network:
        kind, kernel, stride, times = layer.kind, layer.kernel, layer.stride, 1
        sides = [(side - 1) * stride + kernel for side in layer.result[1:]]
        if kind == "deconv":
            if kernel % stride:
                raise ValueError(f"a transposed convolution: stride {stride} does not divide kernel {kernel}")
            kind, kernel, stride, times = "deconv phase", kernel // stride, 1, stride**2
            sides = [side + kernel - 1 for side in layer.given[1:]]
        found[Convolution(kind, kernel, layer.given[0], layer.result[0], *sides, stride)] += times
    return found


@functools.cache
def built(image_size: int = 32) -> dict[str, torch.nn.Module]:
    """The five base models and six generators at full size, without numbers, by label."""
    with torch.device("meta"):
        found = {label: models.build(name, 10, image_size) for name, label in models.LABELS.items()}
        return found | {label: generators.build(name) for name, label in generators.LABELS.items()}


@functools.cache
def networks(image_size: int = 32) -> dict[str, dict[str, Counter[Convolution]]]:
    """Layers of the five base models and six generators, by label: as the authors ran them (""), as they are (`true_`)."""
    found = {label: energy.layers(model, image_size) for label, model in built(image_size).items()}
    return {label: {"": as_run(network), "true_": as_is(network)} for label, network in found.items()}


def simulate(layer: Convolution, memory: bool = True) -> Simulated:
    """Run SCALE-Sim on one layer, see CONFIG: an output-stationary 32x32 array; UserError without SCALE-Sim.

    memory=True: all of it, with three buffers of 256 KB; reads and cycles are those of its own reports.  memory=False: its
    array alone; the reads are the weights that the array demands, the cycles the lines of that demand, counted from 0.
    Under CALC the buffers answer every demand at once, so both give the same numbers, the one in a hundredth of the time.
    """
    try:
        import scalesim.scale_sim
    except ImportError:
        raise UserError("SCALE-Sim is not installed; `pip install scalesim==3.0.0` installs it") from None
    began = time.monotonic()
    sizes = [layer.in_height, layer.in_width, layer.kernel, layer.kernel, layer.cin, layer.cout, layer.stride]
    config = configparser.ConfigParser()
    config.read_dict(CONFIG)
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        warnings.catch_warnings(action="ignore", category=DeprecationWarning),  # from numpy 2.3; 2.4 makes it an error
    ):
        paths = {name: str(Path(folder, f"{name}.csv")) for name in ("config", "topology", "layout")}
        with open(paths["config"], "w") as file:
            config.write(file)
        for name, numbers in (("topology", sizes), ("layout", [1] * 20)):
            Path(paths[name]).write_text(f"name,\nlayer, {', '.join(map(str, numbers))},\n")
        whole = scalesim.scale_sim.scalesim(save_disk_space=True, verbose=False, **paths)
        said = _reports(whole, folder) if memory else _demands(whole)
    return Simulated(*said, time.monotonic() - began)


def _reports(whole: object, folder: str) -> tuple[int, int, int]:
    """Weights read, cycles and stall cycles, as SCALE-Sim reports them in `folder` of a run of all that it simulates."""
    whole.run_scale(top_path=folder)
    reports = (Path(folder, "run", f"{name}_REPORT.csv") for name in ("COMPUTE", "DETAILED_ACCESS"))
    said = pd.concat(pd.read_csv(path, skipinitialspace=True, index_col=False) for path in reports).max()
    return int(said["SRAM Filter Reads"]), int(said["Total Cycles"]), int(said["Stall Cycles"])


def _demands(whole: object) -> tuple[int, int, float]:
    """Weights that SCALE-Sim's array demands, its last cycle, and no number of stall cycles, for want of a memory."""
    from scalesim.compute.operand_matrix import operand_matrix
    from scalesim.compute.systolic_compute_os import systolic_compute_os

    operands, array = operand_matrix(), systolic_compute_os()
    operands.set_params(config_obj=whole.config, topoutil_obj=whole.topo, layoututil_obj=whole.layout, layer_id=0)
    found = {f"{name}_op_mat": getattr(operands, f"get_{name}_matrix")()[1] for name in ("ifmap", "filter", "ofmap")}
    array.set_params(config_obj=whole.config, **found)
    array.create_filter_demand_mat()
    demand = array.filter_demand_matrix  # [cycles, columns]; -1: nothing is asked for
    return int((demand != -1).sum()), len(demand) - 1, np.nan


# ------------------------------------------------------------------------------------------------------------ storing


def path() -> Path:
    """Where the simulator's counts lie, a row a layer; what made them lies beside it in scalesim.json."""
    return results() / "simulated" / "scalesim.csv"


def stored() -> dict[Convolution, Simulated]:
    """The layers simulated so far."""
    if not path().exists():
        return {}
    try:
        frame = pd.read_csv(path())
        values = frame[["simulated_reads", "simulated_cycles", "stall_cycles", "seconds"]].to_numpy(object)
        return {Convolution(*a): Simulated(*b) for a, b in zip(frame[list(Convolution._fields)].to_numpy(object), values)}
    except (ValueError, LookupError):
        raise UserError(f"{path()} is damaged; git checkout restores it") from None


def wanted(image_size: int = 32) -> set[Convolution]:
    """The distinct layers of all networks at an image size, as the authors ran them and as they really are."""
    return {layer for both in networks(image_size).values() for found in both.values() for layer in found}


def _users(layer: Convolution) -> str:
    """The networks that have a layer, each with its image size."""
    users = (f"{label}@{size}" for size in SIZES for label, both in networks(size).items() if layer in both[""] | both["true_"])
    return " ".join(users)


def _write(done: dict[Convolution, Simulated], run: dict) -> None:
    """Both files anew, each whole or not at all; `run` replaces the provenance of this run, earlier ones stay."""
    rows = [
        {
            "networks": _users(layer),
            **layer._asdict(),
            "positions": layer.positions,
            "closed_form_reads": layer.reads,
            "simulated_reads": said.reads,
            "closed_form_cycles": layer.cycles,
            "simulated_cycles": said.cycles,
            "stall_cycles": said.stalls,
            "seconds": round(said.seconds, 1),
        }
        for layer, said in sorted(done.items(), key=lambda item: (item[0].cycles, item[0]))
    ]
    write_whole(path(), pd.DataFrame(rows).to_csv(index=False, lineterminator="\n").encode())
    origin = path().with_suffix(".json")
    before = json.loads(origin.read_text())["runs"] if origin.exists() else []
    runs = [one for one in before if one["started"] != run["started"]] + [run]
    write_whole(origin, (json.dumps({"config": CONFIG, "runs": runs}, indent=1, sort_keys=True) + "\n").encode())


def run(image_size: int = 32, memory: bool = True) -> None:
    """Simulate the layers that are not stored yet, fewest cycles first, each stored as it comes.

    memory: see `simulate`; a layer that is stored either way is done.
    """
    done, began = stored(), time.monotonic()
    missing = sorted(wanted(image_size) - done.keys(), key=lambda layer: (layer.cycles, layer))
    origin = provenance(torch.device("cpu"), started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    command = f"python -m nflib.study.simulate --image-size {image_size}{'' if memory else ' --array'}"
    origin |= {"command": command, "layers": 0, "seconds": 0.0}
    with progress_bar(sum(layer.cycles for layer in missing), "SCALE-Sim", unit="cycle") as bar:
        for layer in missing:
            done[layer] = simulate(layer, memory)
            origin |= {"scalesim": importlib.metadata.version("scalesim"), "layers": origin["layers"] + 1}
            _write(done, origin | {"seconds": round(time.monotonic() - began, 1)})
            bar.update(layer.cycles)


# ---------------------------------------------------------------------------------------------------------- comparing


def frame(image_size: int = 32) -> pd.DataFrame:
    """A row a network: 64-bit weight reads and cycles for one image, in closed form and summed over simulated layers.

    `true_` columns: layers as they really are, the others: as the authors ran them (`as_run`).  shapes, simulated: its
    distinct layers and how many were simulated.  A simulated sum is missing unless all of its layers were.
    authors_cycles: those of the authors' own runs, at 32x32 pixels.  parameters; macs (millions, counted and rounded as in
    Table 7) and true_macs.
    """
    done, rows = stored(), []
    bordered = {"UNetL": generators.UNet(16, zero_border=False), "UNetS": generators.UNet(8, zero_border=False)}
    for label, network in built(image_size).items():
        both = networks(image_size)[label]
        distinct = both[""].keys() | both["true_"].keys()
        row = {"network": label, "shapes": len(distinct), "simulated": len(distinct & done.keys())}
        for true, found in both.items():
            for what, per in (("reads", energy.WEIGHTS_PER_WORD), ("cycles", 1)):
                row[true + what] = -(-sum(n * getattr(layer, what) for layer, n in found.items()) // per)
                row[f"simulated_{true}{what}"] = np.nan
                if found.keys() <= done.keys():
                    total = sum(n * getattr(done[layer], what) for layer, n in found.items())
                    row[f"simulated_{true}{what}"] = -(-total // per)
        ends = label.startswith("ResNet") and image_size == 32  # calls that the authors' tool did not see
        million = energy.macs_as_published(bordered.get(label, network), image_size, ends) / 1e6
        row["macs"] = 1000 * round(million / 1000, 2) if million >= 1000 else round(million, 2)
        row |= {"true_macs": energy.macs(network, image_size) / 1e6, "parameters": models.parameter_count(network)}
        rows.append(row | {"authors_cycles": AUTHORS_CYCLES.get(label, np.nan) if image_size == 32 else np.nan})
    return pd.DataFrame(rows)


def cycle_overhead(image_size: int = 32) -> pd.DataFrame:
    """What a generator adds to its base model's counts for one image, in per cent, a row a pair.

    The columns are those of `frame` that are compared: cycles in closed form and simulated, and true weight reads.
    """
    counts = frame(image_size).set_index("network")
    columns = ["cycles", "simulated_cycles", "true_cycles", "simulated_true_cycles", "true_reads"]
    pairs = [(base, generator) for base in models.LABELS.values() for generator in generators.LABELS.values()]
    extra = [(100 * counts.loc[generator, columns] / counts.loc[base, columns]).to_dict() for base, generator in pairs]
    return pd.DataFrame([{"base_model": pair[0], "generator": pair[1]} | row for pair, row in zip(pairs, extra)])


def main(words: list[str] | None = None) -> int:
    """`python -m nflib.study.simulate`; a user's mistake is one line on stderr and exit status 2."""
    parser = argparse.ArgumentParser(prog="python -m nflib.study.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", default="32", help="32 (half an hour) or 224 (hours, or minutes with --array)")
    parser.add_argument("--array", action="store_true", help="the array alone, without the memory system")
    args = parser.parse_args(words)
    try:
        image_size = int(choose("image size", args.image_size, map(str, SIZES)))
        run(image_size, not args.array)
    except UserError as error:
        print(f"nflib: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nflib: stopped; what was simulated is stored, run the same command again to go on", file=sys.stderr)
        return 130
    print(f"nflib: {len(wanted(image_size))} distinct layers simulated; the counts lie in {path()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
