"""Trainings with other seeds: which are compared, and what the page says of their spread follows the records."""

import dataclasses
import json

import numpy as np
import pytest

from nflib import grids, notebooks, profiles, tables, trained
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.pages import scoreboard
from nflib.pages import seeds as page
from nflib.store import Store
from nflib.training import BaseRecipe

BASE = Base("cifar10", "vgg11", BaseRecipe(epochs=12))
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}


def store(perturbed: list[float], base_seed: int = 0, generator_seed: int | None = None, law: str = "release_map") -> None:
    base = dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, seed=base_seed))
    recipe = None if generator_seed is None else GeneratorRecipe("conv_s", law, seed=generator_seed)
    metrics = {"clean": 90.0, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    cell = Cell("accuracy", base, recipe, law=law, patterns=len(perturbed))
    Store("paper").write(cell, metrics | {"generator_training": recipe and {"seconds": 1.0}}, ORIGIN)


@pytest.fixture
def records(workshop):
    store([40.0, 60.0])
    store([50.0, 62.0], 1)
    store([44.0, 52.0], 2)
    store([70.0, 74.0], 0, 0)  # recovery 30, 14
    store([71.0, 79.0], 1, 0)  # 21, 17
    store([60.0, 66.0], 2, 0)  # 16, 14
    store([72.0, 78.0], 0, 1)
    store([77.0, 79.0], 0, 2)
    return tables.stored("paper")


def test_known_records_give_a_known_frame(records):
    rows = page.frame(records)
    assert list(zip(rows["generator"], rows["base_seed"], rows["generator_seed"].fillna(-1))) == [
        ("none", 0, -1), ("none", 1, -1), ("none", 2, -1),
        ("ConvS", 0, 0), ("ConvS", 0, 1), ("ConvS", 0, 2), ("ConvS", 1, 0), ("ConvS", 2, 0),
    ]  # fmt: skip
    assert list(rows["accuracy"]) == [50, 56, 48, 72, 75, 78, 75, 63] and rows["gain"].isna().sum() == 3
    one = rows.set_index(["base_seed", "generator_seed"]).loc[(1, 0)]
    assert (one["gain"], one["std"], one["worst"]) == (19, 4, 71)  # against the base model of its own seed
    assert one["gain_error"] == pytest.approx(np.std([21, 17], ddof=1) / np.sqrt(2))
    assert tables.to_csv(page.frame(records[::-1])) == tables.to_csv(rows)


def test_what_another_seed_moves(records):
    found = page.spreads(page.frame(records)).set_index("varied")
    assert list(found["trainings"]) == [3, 3, 3]
    for varied, values, chips in (("base model", [50, 56, 48], [10, 6, 4]), (page.AGAIN, [72, 75, 78], [2, 3, 1]), (page.BOTH, [72, 75, 63], [2, 4, 3])):
        row = found.loc[varied]
        assert (row["low"], row["high"], row["chips"]) == (min(values), max(values), np.mean(chips))
        assert row["spread"] == pytest.approx(np.std(values, ddof=1))
    assert (found.loc[page.BOTH, "gain_low"], found.loc[page.BOTH, "gain_high"]) == (15, 22) and np.isnan(found.loc["base model", "gain_low"])


def test_a_setting_that_was_trained_once_is_neither_in_the_table_nor_in_a_picture(records):
    store([11.0, 12.0], law="bit_flips")
    rows = page.frame(tables.stored("paper"))
    assert len(rows) == 9 and "BitFlips" in set(rows["error_model"])
    shown = page.table(rows).data
    assert "(8 rows)" in shown and "11.5" not in shown and "error model ReleaseMap" in shown
    assert page.pictures(rows).data.count("<img") == 1 and "(0 rows)" in page.table(rows[:1]).data


def test_two_trainings_pass_the_needed_difference_in_one_case_of_twenty():
    chance = np.random.default_rng(0)
    for trainings in (3, 10):
        spreads = chance.normal(0, 2, (4000, trainings)).std(axis=1, ddof=1)
        gaps = abs(chance.normal(0, 2, 4000) - chance.normal(0, 2, 4000))
        passed = np.mean([gap > page.needed(spread, trainings) for gap, spread in zip(gaps, spreads)])
        assert passed == pytest.approx(0.05, abs=0.015)


def test_sentences_and_pictures_follow_the_numbers(records):
    rows = page.frame(records)
    text = page.summary(rows, "paper").data
    assert "* **VGG11 alone, trained again**: 48.0 to 56.0 %, standard deviation 4.2 points over 3 trainings; over the chips of one training 6.7." in text
    assert "* **ConvS trained again on one VGG11**: 72.0 to 78.0 %, standard deviation 3.0 points over 3 trainings; over the chips of one training 2.0. Recovery +22.0 to +28.0 points" in text
    assert "* **VGG11 trained again, with a ConvS of its own**: 63.0 to 75.0 %" in text
    # 4.303 (t, 2 degrees of freedom) * sqrt(2) * 3 = 18.3.  Table 12 prints 87.2, 66.3, 87.2, 68.2, 83.6 and 72.7
    assert "as our ConvS does, two of them, each trained once, must be 18.3 points apart" in text
    assert "Of the 15 pairs of generators that it prints here, 11 are closer." in text and "not been trained again" not in text
    assert page.answer(rows) == (
        "ConvS trained 3 times for one VGG11 gives 72.0 to 78.0 % under errors: a difference of up to 18.3 points between two generators "
        "may be luck (95 %). VGG11 itself, trained 3 times, keeps 48.0 to 56.0 %."
    )
    assert "ConvS, seed 2, base model 0: 78.0 % (without errors 90.0 %)" in page.pictures(rows).data


def test_what_was_trained_once_is_not_counted_as_trained_again(records):
    Store("paper").write(Cell("accuracy", Base("gtsrb", "vgg16", BaseRecipe(epochs=7)), patterns=2), {"clean": 90.0, "perturbed": [1.0, 2.0], "changed_bits": [0.0, 0.0], "images": 7, "generator_training": None}, ORIGIN)
    rows = page.frame(tables.stored("paper"))
    assert "VGG16" in set(rows["base_model"]) and "VGG16" not in page.summary(rows, "paper").data


def test_it_is_said_that_generators_learnt_by_imitation(records):
    rows = page.frame(records)
    assert "No generator here was" not in page.summary(rows, "paper").data  # they were trained on Eq. 3
    taught = rows.assign(steps=0.0, imitation_steps=600.0)
    assert "No generator here was trained by the paper's algorithm" in page.summary(taught, "paper").data


def test_one_training_says_nothing(workshop):
    store([40.0, 60.0])
    store([70.0, 74.0], 0, 0)
    rows = page.frame(tables.stored("paper"))
    assert page.spreads(rows).empty and page.answer(rows) is None and "Nothing measured" in page.pictures(rows).data
    assert page.frame([]).empty and "Not measured yet" in page.summary(page.frame([]), "paper").data


def test_the_paper_has_no_numbers_beside_other_error_models(workshop):
    for seed in range(2):
        store([70.0 + seed, 74.0], 0, seed, law="bit_flips")
    text = page.summary(page.frame(tables.stored("paper")), "paper").data
    assert "**ConvS trained again on one VGG11**" in text and "Beside the paper" not in text
    assert "The base model has not been trained again yet." in text and "nan" not in text  # no base model alone: no recovery


def test_a_recovery_counts_only_where_every_training_has_one(workshop):
    store([40.0, 60.0])
    for seed in range(2):
        store([70.0 + seed, 74.0], seed, 0)
    text = page.summary(page.frame(tables.stored("paper")), "paper").data
    assert "**VGG11 trained again, with a ConvS of its own**: 72.0 to 72.5 %" in text and "Recovery" not in text and "nan" not in text


def test_the_scoreboard_shows_the_first_training_not_the_luckiest(records):
    for base_seed, generator_seed in ((1, None), (1, 0), (0, 1)):  # more patterns would win otherwise
        store([90.0, 91.0, 92.0], base_seed, generator_seed)
    rows = scoreboard.frame(tables.stored("paper"))
    ours = rows[(rows["table"] == "Table 12") & (rows["base_model"] == "VGG11") & (rows["ber_percent"] == 1)].set_index(["generator", "metric"])["ours"]
    assert ours["none", "PA"] == 50 and ours["ConvS", "PA_NF"] == 72


def test_the_grid_varies_one_seed_at_a_time():
    cells = grids.seeds("paper", "cifar10", ("vgg11",), "release", ("conv_s",), ("stuck_at",), 0.01, 3, 5)
    found = [(cell.base.recipe.seed, cell.generator and (cell.generator.seed, cell.generator.teacher.seed)) for cell in cells]
    assert found == [(0, None), (1, None), (2, None), (0, (0, 0)), (1, (0, 0)), (2, (0, 0)), (0, (1, 1)), (0, (2, 2))]
    assert {cell.generator.law for cell in cells if cell.generator} == {"stuck_at"}
    assert set(cells) >= set(grids.accuracy("paper", "cifar10", "vgg11", "release", ("conv_s",), ("stuck_at",), (0.01,), 5))  # shared


def test_another_seed_trains_another_model(trained_workshop):
    """Base model and generator differ in the weights that chance starts and orders, not in a name only."""
    cells = [cell for cell in profiles.cells("smoke", "seeds") if cell.generator]
    short = dataclasses.replace(cells[0].base.recipe, epochs=1)
    bases = [dataclasses.replace(cells[0].base, recipe=dataclasses.replace(short, seed=seed)) for seed in (0, 1)]
    kinds = [dataclasses.replace(cells[0].generator, steps=1, seed=seed) for seed in (0, 1)]
    device = trained.choose_device("cpu")
    with trained.precision_of("smoke"):
        models = [trained.base_model(base, device)[0] for base in bases]
        made = [trained.generator_model(dataclasses.replace(cells[0], base=bases[0], generator=kind), device)[0] for kind in kinds]
    for name in models[0].layers:
        assert (models[0].layers[name].weight != models[1].layers[name].weight).any()
    first, other = (dict(generator.named_parameters()) for generator in made)
    assert all((first[name] != other[name]).any() for name in first if first[name].ndim == 4)


@pytest.mark.parametrize("given", [{"trainings": "2", "patterns": "2", "rate": "0.02"}, {"generator_names": "[]", "error_models": "bit_flips,stuck_at", "trainings": "2", "patterns": "3"}])
def test_the_notebook_runs_with_other_parameters(given, trained_workshop, tmp_path):
    path = notebooks.execute("seeds", tmp_path / "out.ipynb", given)
    shown = json.dumps([cell.get("outputs") for cell in json.loads(path.read_text())["cells"]], ensure_ascii=False)
    assert "alone, trained again" in shown and "over 2 trainings" in shown and "nan" not in shown
    assert ("StuckAt" in shown and "trained again on one" not in shown) if "error_models" in given else "ConvL trained again on one VGG11" in shown


def test_one_training_is_refused(refused, tmp_path):
    with refused("trainings is 1; it must be at least 2"):
        notebooks.execute("seeds", tmp_path / "out.ipynb", {"trainings": "1"})
