"""SCALE-Sim's weight reads and cycles against the closed forms: simulated for small layers, stored for all others."""

import json
from math import isnan

import pandas as pd
import pytest
from torch import nn

from nflib import energy
from nflib.study import simulate
from nflib.study.simulate import Convolution, Simulated

SMALL = [
    Convolution("conv", 3, 3, 40, 9, 9, 1),  # 49 positions and 40 channels: two passes each way, the second ones part full
    Convolution("conv", 3, 2, 5, 10, 8, 2),  # SCALE-Sim rounds 3.5 rows up to 5 and 2.5 columns to 4: 20 positions
    Convolution("conv", 1, 8, 32, 6, 6, 2),
    Convolution("linear", 1, 70, 10, 1, 1, 1),
    Convolution("deconv phase", 2, 6, 33, 7, 7, 1),
]


@pytest.mark.parametrize("layer", SMALL, ids=str)
def test_scalesim_counts_as_the_closed_forms_say(layer):
    pytest.importorskip("scalesim")
    said, alone = simulate.simulate(layer), simulate.simulate(layer, memory=False)
    assert (said.reads, said.cycles, said.stalls) == (layer.reads, layer.cycles, 0)
    assert (alone.reads, alone.cycles) == (layer.reads, layer.cycles) and isnan(alone.stalls)


ONE_LAYER = {  # (image size, network of one layer)
    "a second pass each way": (9, nn.Conv2d(3, 40, 3)),
    "one pass": (6, nn.Conv2d(3, 5, 2)),
    "a linear layer": (5, nn.Sequential(nn.Flatten(), nn.Linear(75, 70))),
    "a border": (6, nn.Conv2d(3, 5, 3, padding=1)),
    "strides": (9, nn.Conv2d(3, 5, 3, stride=2)),
    "a transposed convolution": (5, nn.ConvTranspose2d(3, 5, 4, 2, 1)),
}


@pytest.mark.parametrize("name", ONE_LAYER)
def test_scalesim_reads_and_writes_feature_maps_as_the_closed_form_says(name, monkeypatch):
    pytest.importorskip("scalesim")
    size, model = ONE_LAYER[name]
    ((layer, times),) = simulate.as_is(energy.layers(model, size)).items()
    found, reports = {}, simulate._reports

    def read(whole, folder):
        said = reports(whole, folder)
        access = pd.read_csv(f"{folder}/run/DETAILED_ACCESS_REPORT.csv", skipinitialspace=True, index_col=False).iloc[0]
        found.update({what: int(access[f"SRAM {what}"]) for what in ("Filter Reads", "IFMAP Reads", "OFMAP Writes")})
        return said

    monkeypatch.setattr(simulate, "_reports", read)
    simulate.simulate(layer)
    counts = [8 * words for words in energy.accesses(model, size)[:3]]  # SCALE-Sim counts numbers, of a byte each,
    passes = -(-layer.positions // 32) * -(-layer.cout // 32)  # and 64 writes a pass beyond the outputs that there are
    assert [times * number for number in found.values()] == [*counts[:2], counts[2] + 64 * passes * times]


def test_layers_and_closed_forms_by_hand():
    """49 positions: 2 folds of 27 * 40 weights; 2 * 2 passes of 27 + 62 cycles, counted from 0.  One strided and one
    transposed convolution, as the authors ran them: 18x18 with border, and 16 + 2 pixels with the channels swapped;
    truly: 8x8 positions each."""
    assert (SMALL[0].positions, SMALL[0].reads, SMALL[0].cycles) == (49, 2 * 27 * 40, 2 * 2 * 89 - 1)
    assert SMALL[1].positions == 20
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 5, 4, 2, 1, bias=False))
    network = energy.layers(model, 16)
    assert simulate.as_run(network) == {
        Convolution("conv", 3, 3, 4, 18, 18, 2): 1,
        Convolution("deconv proxy", 4, 5, 4, 18, 18, 1): 1,
    }
    assert simulate.as_is(network) == {
        Convolution("conv", 3, 3, 4, 17, 17, 2): 1,
        Convolution("deconv phase", 2, 4, 5, 9, 9, 1): 4,
    }
    with pytest.raises(ValueError, match="stride 2 .* kernel 3"):
        simulate.as_is(energy.layers(nn.ConvTranspose2d(3, 5, 3, 2), 8))


def test_every_stored_count_equals_its_closed_form():
    rows = pd.read_csv(simulate.path())
    assert (rows["simulated_reads"] == rows["closed_form_reads"]).all()
    assert (rows["simulated_cycles"] == rows["closed_form_cycles"]).all() and (rows["stall_cycles"].dropna() == 0).all()
    done = simulate.stored()
    assert len(done) == len(rows)
    assert [(layer.positions, layer.reads, layer.cycles) for layer in done] == [
        *zip(rows["positions"], rows["closed_form_reads"], rows["closed_form_cycles"])
    ]
    runs = json.loads(simulate.path().with_suffix(".json").read_text())["runs"]
    assert sum(one["layers"] for one in runs) == len(rows) and {one["scalesim"] for one in runs} == {"3.0.0"}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"positions,reads\n1,2\n"])
def test_damaged_counts_are_refused(content, tmp_path, monkeypatch, refused):
    (tmp_path / "scalesim.csv").write_bytes(content)
    monkeypatch.setattr(simulate, "path", lambda: tmp_path / "scalesim.csv")
    with refused("scalesim.csv is damaged"):
        simulate.stored()


def test_the_stored_counts_cover_every_network():
    """Those of 32 pixels with the memory, which never keeps the array waiting; of 224 all but a few large layers.
    Cycles are those of the authors' eleven runs."""
    done = simulate.stored()
    assert simulate.wanted(32) <= done.keys() and len(simulate.wanted(224) - done.keys()) <= 3
    assert {done[layer].stalls for layer in simulate.wanted(32)} == {0}
    large = simulate.frame(224)
    whole = large[large["simulated"] == large["shapes"]]
    assert len(whole) >= 8
    assert whole["simulated_reads"].tolist() == whole["reads"].tolist()
    assert whole["simulated_true_cycles"].tolist() == whole["true_cycles"].tolist()
    counts = simulate.frame()
    assert (counts["simulated"] == counts["shapes"]).all()
    assert counts["simulated_reads"].tolist() == counts["reads"].tolist()
    assert counts["simulated_true_reads"].tolist() == counts["true_reads"].tolist()
    assert counts["simulated_cycles"].tolist() == counts["authors_cycles"].tolist() == counts["cycles"].tolist()
    extra = simulate.cycle_overhead().set_index(["base_model", "generator"])["simulated_cycles"].round(1)
    assert (extra["ResNet18", "ConvL"], extra["VGG11", "ConvL"], extra["VGG11", "ConvS"]) == (13.9, 29.4, 5.5)


@pytest.fixture
def counted(workshop, monkeypatch):
    """A workshop in which a simulation costs nothing; the layers simulated, in order."""
    asked = []

    def fake(layer: Convolution, memory: bool = True) -> Simulated:
        asked.append(layer)
        return Simulated(layer.reads, layer.cycles, 0 if memory else float("nan"), 1e-4 * layer.cycles)

    monkeypatch.setattr(simulate, "simulate", fake)
    monkeypatch.setattr(simulate.importlib.metadata, "version", lambda name: "3.0.0")
    monkeypatch.setattr(simulate, "wanted", lambda image_size=32: set(SMALL))
    return asked


def test_a_run_goes_on_where_it_was_stopped_and_counts_nothing_twice(counted, monkeypatch):
    begun = simulate.simulate

    def stopped(layer: Convolution, memory: bool = True) -> Simulated:
        if len(counted) == 2:
            raise KeyboardInterrupt
        return begun(layer, memory)

    monkeypatch.setattr(simulate, "simulate", stopped)
    assert simulate.main([]) == 130
    assert simulate.stored().keys() == set(counted) and len(counted) == 2
    assert simulate.frame()["simulated_cycles"].isna().all(), "a missing layer is missing, not zero"
    monkeypatch.setattr(simulate, "simulate", begun)
    assert simulate.main([]) == 0
    assert sorted(counted) == sorted(SMALL)
    assert [layer.cycles for layer in counted] == sorted(layer.cycles for layer in SMALL)


def test_what_was_simulated_without_memory_is_kept_and_said(counted):
    """Blank in the file, nan when read; a layer that is stored is not simulated again with the memory."""
    assert simulate.main(["--image-size", "224", "--array"]) == 0
    assert all(isnan(said.stalls) for said in simulate.stored().values())
    run = json.loads(simulate.path().with_suffix(".json").read_text())["runs"][0]
    assert run["command"] == "python -m nflib.study.simulate --image-size 224 --array"
    before = len(counted)
    assert simulate.main(["--image-size", "224"]) == 0 and len(counted) == before


def test_mistakes_are_refused_in_one_line(workshop, refused, monkeypatch, capsys):
    assert simulate.main(["--image-size", "33"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setitem(simulate.sys.modules, "scalesim.scale_sim", None)
    with refused("SCALE-Sim"):
        simulate.simulate(SMALL[0])
