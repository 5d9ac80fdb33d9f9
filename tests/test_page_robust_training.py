"""The page on other training: the frame by hand, the paper beside it, and the notebook from nothing."""

import dataclasses
import json

import numpy as np
import pytest

from nflib import grids, notebooks, profiles, tables
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.pages import robust_training as page
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASE = Base("cifar10", "resnet18", BaseRecipe())
PREACT = Base("cifar10", "preact_resnet18", BaseRecipe())
AWP = dataclasses.replace(PREACT, recipe=BaseRecipe("awp", weight_perturbation=0.005))
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}


def store(base: Base, generator: str, perturbed: list[float], flips: int = 0, law: str = "release_map") -> None:
    changes = {"models_per_step": 1, "adversarial_flips": flips} if flips else {}
    recipe = GeneratorRecipe(generator, law, **changes) if generator else None
    cell = Cell("accuracy", base, recipe, law=law, patterns=len(perturbed))
    metrics = {"clean": 90.0, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    Store("paper").write(cell, metrics, ORIGIN)


@pytest.fixture
def records(workshop):
    store(BASE, "", [40.0, 50.0])
    store(BASE, "conv_l", [80.0, 82.0])
    store(BASE, "conv_l", [36.0, 44.0], flips=500)
    store(AWP, "", [30.0, 34.0])
    store(AWP, "unet_l", [70.0, 72.0])
    store(PREACT, "", [20.0, 24.0])
    return tables.stored("paper")


def test_known_records_give_a_known_frame(records):
    rows = page.frame(records)
    assert list(rows["base_model"]) == ["ResNet18"] * 3 + ["PreActResNet18"] * 3
    assert list(rows["generator"]) == ["none", "ConvL", "ConvL", "none", "UNetL", "none"]
    rows = rows.set_index(["base_recipe", "generator", "flips"]).sort_index()
    random, attacked, awp = (rows.loc[key] for key in (("release", "ConvL", 0), ("release", "ConvL", 500), ("awp", "UNetL", 0)))
    assert (random["PA"].item(), random["RP"].item(), random["published_RP"].item()) == (45, 36, 48.8)
    assert (attacked["RP"].item(), attacked["RP_error"].item()) == (-5, pytest.approx(1))  # of -4, -6
    assert (attacked["published_RP"].item(), attacked["published_CA_NF"].item()) == (-0.2, 92.1)
    assert attacked["flips_percent"].item() == pytest.approx(100 * 500 / (8 * 11_164_352))
    assert np.isnan(random["flips_percent"].item())
    assert [awp[f"published_{m}"].item() for m in tables.METRICS] == [89.7, 23.0, 86.1, 60.4, 37.4]
    plain = rows.xs("none", level="generator").query("base_model == 'PreActResNet18'").loc["release"]
    assert plain["PA"].item() == 22 and np.isnan(plain["published_PA"].item())  # the paper has none without AWP


def test_the_same_records_in_another_order_give_the_same_bytes(records):
    assert tables.to_csv(page.frame(records[::-1], "cifar10")) == tables.to_csv(page.frame(records, "cifar10"))


def test_sentences_follow_the_numbers(records):
    rows = page.frame(records)
    text = page.summary(rows, "paper", 25).data
    assert "ConvL trained on random patterns, 10 perturbed models a step: RP +36.0 ± 4.0." in text
    assert "RP −5.0 ± 1.0; against random patterns, on the same chips, −41.0 ± 3.0 points, beyond two standard errors; the paper has −0.2." in text
    assert "above zero for no K" in text and "0.5 % of the stored bits" in text and "from −16 to 0 for its 5 values of K" in text
    text = page.summary(rows, "paper", 26).data
    assert "`awp` has CA 90.0 %, PA 32.0 %; `release` has CA 90.0 %, PA 22.0 %" in text
    assert "AWP changes PA by +10.0 ± 2.8 points, beyond two standard errors over patterns, and CA by +0.0 points" in text  # each ± 2
    assert "UNetL behind `awp`: RP +39.0 ± 1.0; the paper has +37.4." in text
    assert "23 % at 1 % (ResNet18 without AWP: 38.9 %)" in text


def test_a_generator_that_recovers_is_said_to(workshop):
    store(BASE, "", [40.0, 50.0])
    store(BASE, "conv_l", [50.0, 60.5], flips=500)
    text = page.summary(page.frame(tables.stored("paper")), "paper", 25).data
    assert "above zero for K = 500" in text and "against random" not in text


def test_random_patterns_alone_have_a_picture_too(workshop):
    store(BASE, "", [40.0, 50.0])
    store(BASE, "conv_l", [80.0, 82.0])
    assert page.pictures(page.frame(tables.stored("paper")), 25).data.count("<img") == 1


def test_without_its_base_model_a_generator_has_no_recovery(workshop):
    store(BASE, "conv_l", [36.0, 44.0], flips=500)
    store(AWP, "unet_l", [70.0, 72.0])
    rows = page.frame(tables.stored("paper"))
    assert rows["PA_NF"].notna().all() and rows[["PA", "RP"]].isna().all(axis=None)
    for table in (25, 26):
        assert " nan" not in page.summary(rows, "paper", table).data
        assert "–" in page.table(page.frame(tables.stored("paper"), "cifar10"), table).data
        assert page.pictures(rows, table).data.count("<img") == 1


def test_other_laws_have_no_published_numbers_beside_them(workshop):
    store(BASE, "", [40.0, 50.0], law="bit_flips")
    store(AWP, "", [40.0, 50.0], law="bit_flips")
    rows = page.frame(tables.stored("paper"))
    assert rows[[*page.PUBLISHED, *page.DIFFERENCES]].isna().all(axis=None)


def test_the_paper_s_settings_have_rows_where_ours_are_missing_and_only_there(records):
    empty, rows = page.frame([], "cifar10"), page.frame(records, "cifar10")
    assert empty["record"].isna().all() and empty[["PA", "RP"]].isna().all(axis=None)
    assert sorted(empty.loc[empty["flips"] > 0, "flips"]) == [100, 500, 5000, 20000, 100000]
    assert (empty["base_recipe"] == "awp").sum() == 14 and len(rows) == len(empty) + 1  # PreActResNet18 without AWP
    assert page.frame([]).empty and page.frame([], "digits").empty
    for table in (25, 26):
        for nothing in (page.frame([]), empty):
            text = page.summary(nothing, "paper", table).data
            assert text.startswith("**Not measured yet at full size:** `nflib sweep robust_training --profile paper`")
            page.pictures(nothing, table), page.table(nothing, table)


def test_pictures_say_what_they_show(records):
    rows = page.frame(records)
    ((title, some),) = page._attacks(rows)
    alt = page.flips_picture(some, title).alt
    assert "random patterns: RP +36.0" in alt and "K = 500: RP -5.0" in alt
    ((title, some),) = page._protected(rows)
    alt = page.awp_picture(some, title).alt
    assert "awp, alone: 32 %; release, alone: 22 %; awp, UNetL: 71 %" in alt


@pytest.mark.parametrize(
    "given",
    [
        {"flips": "7", "generator_names": "[]", "patterns": "2"},
        {"flips": "[]", "generator_names": "conv_s", "patterns": "2", "error_model": "bit_flips", "rates": "0.02"},
    ],
)
def test_the_notebook_runs_with_other_parameters(given, trained_workshop, tmp_path):
    """The first experiment from nothing; PreActResNet18, which trains for minutes, has records already, of two patterns."""
    values = notebooks.parameters("robust_training") | notebooks.strict("robust_training", given)
    cells = grids.robust_training(**{name: value for name, value in values.items() if name not in ("device", "measure")})
    for cell in cells:
        if cell.base.model == "preact_resnet18":
            metrics = {"clean": 90.0, "perturbed": [50.0, 60.0 + bool(cell.generator)], "changed_bits": [0.02] * 2, "images": 360}
            facts = {"base_training": None, "generator_training": None, "evaluation_seconds": 1.0}
            Store("smoke").write(cell, metrics | facts, ORIGIN)
    output = notebooks.execute("robust_training", tmp_path / "out.ipynb", given)
    assert all(Store("smoke").has(cell) for cell in cells)
    assert len(list((results() / "records" / "smoke" / "accuracy").glob("*.json"))) == len(cells)
    measured = {cell.generator.adversarial_flips for cell in cells if cell.generator and cell.base.model == "vgg11"}
    shown = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)
    assert "ConvL trained on random patterns, 1 perturbed model a step: RP" in shown
    if given["flips"] == "7":
        assert measured == {0, 7} and "K = 7, " in shown and "behind `awp`: RP" not in shown
    else:
        assert measured == {0} and "AWP changes PA by +0.0" in shown and "BER 2 %, 8 epochs, BitFlips" in shown
        assert "ConvS behind `awp`: RP +0.5 ± 0.5." in shown


def test_the_notebook_s_defaults_are_in_the_smoke_grid():
    given = notebooks.parameters("robust_training")
    names = [name for name in given if name not in ("device", "measure")]
    assert set(grids.robust_training(**{name: given[name] for name in names})) <= set(profiles.cells("smoke", "robust_training"))
