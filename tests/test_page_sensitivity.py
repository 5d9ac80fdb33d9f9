"""Errors in one bit, one layer, the generator too: what is hit, by hand; what the page says of it; the notebook from nothing."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from nflib import faults, grids, measures, models, notebooks, profiles, tables
from nflib.cells import Base, Cell, cell_of, plain
from nflib.eopm import GeneratorRecipe
from nflib.pages import sensitivity as page
from nflib.quantize import Quantized
from nflib.store import Store, results
from nflib.trained import generator_model, precision_of
from nflib.training import BaseRecipe

BASE = Base("cifar10", "vgg11", BaseRecipe())
CONV_S = GeneratorRecipe("conv_s")
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}


def store(clean: float, perturbed: list[float], hit: str = "", recipe=None) -> None:
    metrics = {"clean": clean, "perturbed": perturbed, "images": 100, "layer_weights": [100, 300]}
    kind = "sensitivity" if hit else "accuracy"
    Store("paper").write(Cell(kind, BASE, recipe, patterns=len(perturbed), hit=hit), metrics, ORIGIN)


@pytest.fixture
def known(workshop):
    store(88.0, [40.0, 50.0])
    for hit, perturbed in {"bit 0": [88.0, 87.0], "bit 7": [58.0, 60.0], "layer 1": [80.0, 84.0], "layer 2": [60.0, 70.0]}.items():
        store(88.0, perturbed, hit)
    store(84.0, [80.0, 82.0], recipe=CONV_S)
    store(84.0, [20.0, 30.0], "generator too", CONV_S)
    return tables.stored("paper") + tables.stored("paper", kind="sensitivity")


@pytest.mark.parametrize("law", ["release_map", "bit_flips", "stuck_at"])
def test_errors_are_those_of_the_whole_pattern_in_one_bit_or_layer(law):
    base = Quantized(models.build("vgg11", width=0.125))
    whole = faults.error_model(law, 0.02)
    full, names = whole.draw(base.sizes, 50000), list(base.sizes)
    wrong = {name: torch.zeros(size, dtype=torch.uint8) for name, size in base.sizes.items()}
    for name, found in full.items():
        wrong[name][found.index] = faults.wrong_bits(base, name, found)
    for hit, layers, mask in (("bit 0", names, 1), ("bit 7", names, 128), ("layer 3", names[2:3], 255), ("layer 9", names[8:], 255)):
        pattern = measures.limited(whole, hit, base).draw(base.sizes, 50000)
        for name, marks in wrong.items():
            seen = torch.zeros_like(marks)
            if name in pattern:
                seen[pattern[name].index] = faults.wrong_bits(base, name, pattern[name])
            assert torch.equal(seen, marks & mask if name in layers else torch.zeros_like(marks)), (hit, name)
        assert any((marks & mask).any() for name, marks in wrong.items() if name in layers)


@pytest.mark.parametrize("hit", ["bit 8", "layer 10"])
def test_a_bit_or_layer_that_is_not_there_is_refused(hit, refused):
    with refused(f"errors hit '{hit}', but"):
        measures.limited(faults.BitFlips(0.01), hit, Quantized(models.build("vgg11", width=0.125)))


@pytest.mark.parametrize("kind,hit,words", [
    ("sensitivity", "bits 7", "allowed are"), ("sensitivity", "layer 0", "allowed are"), ("sensitivity", "", "says what"),
    ("accuracy", "bit 7", "says what"), ("sensitivity", "generator too", "no generator"),
])  # fmt: skip
def test_cells_that_hit_nothing_known_are_refused(kind, hit, words, refused):
    with refused(words):
        Cell(kind, BASE, hit=hit)


def test_cells_of_before_keep_their_digest_and_what_is_hit_is_read_back():
    assert "hit" not in plain(Cell("accuracy", BASE))
    cell = Cell("sensitivity", BASE, hit="layer 2")
    assert cell_of(plain(cell)) == cell and cell.key("hit") == "layer 2" and "(layer 2)" in cell.words


def test_a_generator_that_fails_too_is_put_right_again_and_changes_the_answers(trained_workshop):
    """Measured against the generator patched by hand; without errors both are the same."""
    recipe = grids.generator_recipe("smoke", "conv_s", "bit_flips", 0.01, steps=3, initial_gain=3.0)
    base = grids.base("smoke", "digits", "vgg11", "release")
    device = torch.device("cpu")

    def measured(rate: float, kind: str = "sensitivity", hit: str = "generator too") -> list[float]:
        cell = Cell(kind, base, recipe, law="bit_flips", rate=rate, patterns=2, images=100, hit=hit)
        with precision_of("smoke"):
            return measures.measure(cell, device)[0]["perturbed"]

    assert measured(0.0) == measured(0.0, "accuracy", "")
    both = measured(0.01)
    assert both == measured(0.01) and both != measured(0.01, "accuracy", "")
    with precision_of("smoke"):
        model, _, _ = generator_model(Cell("accuracy", base, recipe), device)
        front, (whole, *_) = Quantized(model), measures._models(Cell("accuracy", base), device, None)
        split, law = measures.dataset_on("digits", device).test.first(100), faults.BitFlips(0.01)
        with faults.perturbed(front, law.draw(front.sizes, 50001)):
            batches = measures.evaluation.prepared(split, model)
        with faults.perturbed(whole, law.draw(whole.sizes, 50001)):
            assert measures.evaluation.accuracy(whole, batches) == both[1]


def test_one_bit_of_a_profiled_chip_can_be_hit_although_its_rate_says_nothing(tmp_path):
    """Every fault of this chip lies in bit 7."""
    ones = np.zeros((4, 16), bool)
    ones[1::2, 7] = True
    np.savez(tmp_path / "chip.npz", stuck_at_0=np.zeros_like(ones), stuck_at_1=ones)
    base, law = Quantized(models.build("vgg11", width=0.0625)), faults.error_model(f"chip_map:{tmp_path / 'chip.npz'}", 0.01)
    whole, top, low = (measures.limited(law, hit, base).draw(base.sizes, 0) for hit in ("", "bit 7", "bit 0"))
    assert faults.changed_bits(base, top) == faults.changed_bits(base, whole) > 0 == faults.changed_bits(base, low)


def test_known_records_give_a_known_frame(known):
    rows = page.frame(known)
    assert list(rows["hit"]) == ["everywhere", "bit 0", "bit 7", "layer 1", "layer 2", "everywhere", "generator too"]
    assert list(rows["loss"]) == [43, 0.5, 29, 6, 23, 3, 59] and list(rows["weights"].dropna()) == [100, 300]
    assert tables.to_csv(rows) == tables.to_csv(page.frame(known[::-1]))


def test_bars_of_partly_measured_systems_stand_at_their_own_bits_and_layers(monkeypatch):
    """Bits 0, 1 and 7 alone, bits 0 and 7 behind a generator, and layers of the base model alone only."""
    row = dict.fromkeys(page.COLUMNS, 0) | dict.fromkeys(page.GROUP, "x") | {"ber_percent": 1.0, "generator": "none", "clean": 90.0}
    hits = [("none", hit, loss) for hit, loss in (("everywhere", 40), ("bit 0", 0), ("bit 1", 1), ("bit 7", 30), ("layer 1", 5), ("layer 2", 6))]
    hits += [("ConvL", hit, loss) for hit, loss in (("everywhere", 9), ("bit 0", 2), ("bit 7", 8))]
    rows = pd.DataFrame([row | {"generator": name, "hit": hit, "loss": loss} for name, hit, loss in hits])
    drawn = []
    monkeypatch.setattr(page.figures, "Picture", lambda figure, alt: drawn.append(figure))
    monkeypatch.setattr(page.show, "gallery", list)
    page.bits(rows), page.layers(rows)
    bits, layers = (figure.axes[0] for figure in drawn)
    assert [text.get_text() for text in bits.get_xticklabels()] == ["0", "1", "7", "all"]
    places = [{round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in group} for group in bits.containers if hasattr(group, "patches")]
    assert places == [{0: 0, 1: 1, 2: 30, 3: 40}, {0: 2, 2: 8, 3: 9}]
    assert [text.get_text() for text in layers.get_xticklabels()] == ["1", "2", "all"]


def test_sentences_say_what_is_there(known):
    text = page.summary(page.frame(known), "paper").data
    for said in (
        "**Alone**: 88.0 % without errors, 45.0 % with errors everywhere. Errors in one bit only cost most in bit 7: 29.0 points"
        "; those of the 2 bits measured, one by one, add up to 29.5, errors everywhere cost 43.0.",
        "Errors in one layer only cost most in layer 2: 23.0 points (75 % of the weights)",
        "**Behind ConvS**: 84.0 % without errors, 81.0 % with errors everywhere. If the generator's memory has them too: 25.0 % "
        "(worst chip 20.0 %), −56.0 points.",
    ):
        assert said in text


def test_places_that_cost_about_as_much_are_named_together(workshop):
    """With two chips nobody can tell 10 from 9 points; where every loss is within its error, none is named."""
    store(88.0, [40.0, 50.0])
    for hit, perturbed in {"layer 1": [78.0, 80.0], "layer 2": [77.5, 78.5], "bit 0": [80.0, 95.0], "bit 7": [87.0, 88.4]}.items():
        store(88.0, perturbed, hit)
    text = page.summary(page.frame(tables.stored("paper") + tables.stored("paper", kind="sensitivity")), "paper").data
    assert "Errors in one layer only cost most in layer 2 and layer 1: 10.0 and 9.0 points (100 % of the weights)" in text
    assert "Errors in one bit only cost nothing clear, at most 0.5 points; those of the 2 bits" in text


def test_pictures_say_in_words_what_they_show(known):
    rows = page.frame(known)
    assert "alone: bit 0 0.5, bit 7 29.0, everywhere 43.0" in page.bits(rows).data and page.layers(rows).data.count("<img") == 1


def test_nothing_measured_is_said(workshop):
    rows = page.frame([])
    assert rows.empty and list(rows.columns) == page.COLUMNS and "(0 rows)" in page.table(rows).data
    assert "Not measured yet" in page.summary(rows, "paper").data and "Nothing measured" in page.bits(rows).data + page.layers(rows).data


def test_the_notebooks_defaults_are_the_smoke_grid():
    given = {name: value for name, value in notebooks.parameters("sensitivity").items() if name not in ("device", "measure")}
    assert grids.sensitivity(**given) == profiles.cells("smoke", "sensitivity")


def test_the_notebook_runs_from_nothing_with_other_parameters(trained_workshop, tmp_path):
    """Alone under stuck-at cells; then behind a generator under flips at 2 %."""

    def run(**changes: str) -> str:
        output = notebooks.execute("sensitivity", tmp_path / "out.ipynb", {"patterns": "1", "images": "60", **changes})
        return json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)

    shown = run(generator_names="[]", error_models="stuck_at")
    assert "**Alone**" in shown and "StuckAt, BER 1 %" in shown and "Behind" not in shown
    shown = run(generator_names="unet_s", error_models="bit_flips", rate="0.02")
    assert "**Behind UNetS**" in shown and "If the generator's memory has them too" in shown and "BitFlips, BER 2 %" in shown
    kinds = [path.parent.name for path in (results() / "records" / "smoke").glob("*/*.json")]
    assert kinds.count("sensitivity") == 3 * 17 + 1 and kinds.count("accuracy") == 3
