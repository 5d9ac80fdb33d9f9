"""Shifted test images: what each shift does to them, and what the page says follows the records."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from nflib import generators, grids, measures, notebooks, profiles, tables
from nflib.cells import Base, Cell
from nflib.data import Split
from nflib.eopm import GeneratorRecipe
from nflib.pages import shift as page
from nflib.shifts import SHIFTS, shifted
from nflib.store import Store
from nflib.training import BaseRecipe

BASE = Base("cifar10", "vgg11", BaseRecipe(epochs=12))
TELLER = Base("cifar10", "conv_l_encoder", BaseRecipe("modern"))
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}


def store(clean: float, perturbed: list[float], recipe=None, shift: str = "", **more) -> None:
    metrics = {"clean": clean, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    cell = Cell("shift" if shift else "accuracy", BASE, recipe, patterns=len(perturbed), shift=shift, **more)
    Store("paper").write(cell, metrics | {"generator_training": recipe and {"seconds": 1.0}}, ORIGIN)


@pytest.fixture
def records(workshop):
    store(90.0, [40.0, 50.0, 60.0])
    store(85.0, [80.0, 82.0, 84.0], GeneratorRecipe("conv_s"))
    store(60.0, [30.0, 32.0, 34.0], shift="noise")
    store(50.0, [28.0, 35.0, 33.0], GeneratorRecipe("conv_s"), "noise")
    store(88.0, [40.0, 41.0, 42.0], shift="dark")
    store(84.0, [70.0, 72.0, 74.0], GeneratorRecipe("conv_s"), "dark")
    store(86.0, [84.0, 85.0, 86.0], GeneratorRecipe(generators.CLASS_PATTERNS), "dark", teller=TELLER)
    store(86.0, [84.0, 85.0, 86.0], GeneratorRecipe(generators.CLASS_PATTERNS), "blur", teller=TELLER)
    return tables.stored("paper") + tables.stored("paper", kind="shift")


def images() -> Split:
    values = torch.linspace(0, 255, 3 * 16 * 16).reshape(1, 3, 16, 16).to(torch.uint8)
    return Split(torch.cat([values, values.flip(3)]), torch.tensor([0, 1]))


def test_each_shift_does_what_it_says():
    split = images()
    found = {name: shifted(split, name) for name in SHIFTS}
    for other in found.values():
        assert other.images.dtype == torch.uint8 and other.images.shape == split.images.shape and other.labels is split.labels
    assert (found["dark"].images == (split.images.float() - 0.15 * 255).clamp(min=0).round()).all()
    spread, squeezed = (s.images.float().std((2, 3)) for s in (split, found["low_contrast"]))
    assert squeezed.numpy() == pytest.approx(0.4 * spread.numpy(), rel=0.03)
    inside = (split.images > 80) & (split.images < 175)  # where noise is not cut off
    noise = (found["noise"].images.float() - split.images.float())[inside]
    assert abs(noise.mean()) < 2 and noise.std() == pytest.approx(0.08 * 255, rel=0.1)
    assert (shifted(split, "noise").images == found["noise"].images).all()
    dot = torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    dot[:, :, 4, 4] = 255
    blurred = shifted(Split(dot, torch.tensor([0])), "blur").images[0, 0].float()
    offsets = torch.arange(-2.0, 3.0)
    kernel = torch.exp(-(offsets**2) / (2 * 0.7**2))
    assert blurred[4, 2:7].numpy() == pytest.approx(255 * (kernel / kernel.sum() * kernel[2] / kernel.sum()).numpy(), abs=0.6)


def test_a_shift_belongs_to_its_kind_and_must_be_known(refused):
    assert Cell("shift", BASE, shift="blur").words.startswith("CIFAR-10 VGG11 (release) (blur)")
    assert Cell("accuracy", BASE).digest == dataclasses.replace(Cell("shift", BASE, shift="blur"), table="accuracy", shift="").digest
    for table, shift, said in (("accuracy", "blur", "kind 'accuracy' with 'blur'"), ("shift", "", "kind 'shift' with 'none'"), ("shift", "blurr", "did you mean 'blur'")):
        with refused(said):
            Cell(table, BASE, shift=shift)
    with refused("did you mean 'noise'"):
        shifted(images(), "noises")


def test_the_shifted_images_are_what_is_measured(trained_workshop):
    """A shift that blackens every image leaves one answer for all of them, on every chip."""
    cell = dataclasses.replace(profiles.cells("smoke", "shift")[0], patterns=2, images=100)
    plain = measures.measure(cell, torch.device("cpu"))[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHIFTS, "dark", lambda images: images * 0)
        dark = measures.measure(dataclasses.replace(cell, table="shift", shift="dark"), torch.device("cpu"))[0]
    assert plain["clean"] > 60 and dark["images"] == 100 and dark["clean"] < 25 and max(dark["perturbed"]) < 25


def test_known_records_give_a_known_frame(records):
    rows = page.frame(records)
    assert len(rows) == 8 and list(rows["system"].unique()) == ["alone", "behind ConvS", "class patterns, ConvL encoder"]
    row = rows.set_index(["system", "shift"]).loc["behind ConvS", "noise"]
    assert (row["clean"], row["accuracy"], row["worst"]) == (50, 32, 28) and row["gain"] == 0  # against 30, 32, 34 on the same chips
    assert row["gain_error"] == pytest.approx(np.std([-2, 3, -1], ddof=1) / np.sqrt(3))
    assert rows.set_index(["system", "shift"]).loc["behind ConvS", page.NONE]["gain"] == 32
    assert np.isnan(rows.set_index(["system", "shift"]).loc["class patterns, ConvL encoder", "blur"]["gain"])  # not measured alone
    assert tables.to_csv(page.frame(records[::-1])) == tables.to_csv(rows)


def test_sentences_and_pictures_follow_the_numbers(records):
    rows = page.frame(records)
    text = page.summary(rows, "paper").data
    assert "* **Alone**, in per cent under errors, in brackets without: as they are 50.0 (90.0); noise 32.0 (60.0); dark 41.0 (88.0)." in text
    assert "* **Behind ConvS**: recovery in points: as they are +32.0 ± 4.6; noise +0.0 ± 1.5; dark +31.0 ± 0.6." in text
    assert "zero under 1 of 2 shifts. Without errors the hardest shift, noise, costs it 35.0 points, to 50.0 %." in text
    said = page.answer(rows)
    assert said.startswith("In 2 of 3 pairs of shift and system the recovery stays more than 2 standard errors above zero. VGG11 behind class patterns")
    assert "dark, behind ConvS: 72 % (without errors 84 %)" in page.pictures(rows).data


def test_nothing_shifted_says_so(workshop):
    store(90.0, [40.0, 50.0])
    rows = page.frame(tables.stored("paper"))
    assert page.answer(rows) is None and "Nothing measured" in page.pictures(rows).data and "Alone" not in page.summary(rows, "paper").data
    assert page.frame([]).empty and "Not measured yet" in page.summary(page.frame([]), "paper").data


@pytest.mark.parametrize(
    "given",
    [
        {"generator_names": "unet_s", "tellers": "[]", "shifts": "blur", "patterns": "2", "rate": "0.02"},
        {"generator_names": "[]", "shifts": "noise,dark", "error_model": "bit_flips", "patterns": "3"},
    ],
)
def test_the_notebook_runs_with_other_parameters(given, trained_workshop, tmp_path):
    path = notebooks.execute("shift", tmp_path / "out.ipynb", given)
    shown = json.dumps([cell.get("outputs") for cell in json.loads(path.read_text())["cells"]], ensure_ascii=False)
    for words in given["shifts"].split(","):
        assert f"; {words} " in shown or f"{words}, alone" in shown
    assert "without errors" in shown and "nan" not in shown


def test_the_grid_measures_every_system_with_and_without_each_shift():
    cells = grids.shift("paper", "cifar10", ("vgg11",), "release", ("conv_s",), ("conv_l",), ("blur", "dark"), "stuck_at", 0.01, 5)
    assert [cell.shift for cell in cells] == ["", "blur", "dark"] * 3
    assert {cell.generator.law for cell in cells if cell.generator} == {"stuck_at"} and sum(cell.teller is not None for cell in cells) == 3
