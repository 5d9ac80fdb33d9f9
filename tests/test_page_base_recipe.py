"""The page "base_recipe": known records give a known frame; changes and correlations by hand; verdicts follow the numbers."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from nflib import grids, notebooks, profiles, recipes, tables
from nflib.cells import Base, Cell, cell_of
from nflib.pages import base_recipe as page
from nflib.store import Store, results
from nflib.training import BaseRecipe

ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}
MIDDLE = BaseRecipe("varied", 6, 128, 0.1, weight_decay=5e-4, schedule="one_cycle")
RELEASE = BaseRecipe("release", 6, 128, 0.02)
PLAIN = dataclasses.replace(MIDDLE, weight_decay=0.0)
CLIPPED = dataclasses.replace(PLAIN, clipping=0.1)
SIX = [dataclasses.replace(MIDDLE, weight_decay=value) for value in (0.0, 1e-4, 2e-4, 3e-4, 4e-4, 5e-4)]


def inside(own: float = 0.2, weights: float = 0.1, silent: float = 0.25, shift: float = 0.3) -> dict:
    """Damage of two layers whose geometric means are the values given."""
    return {
        "layers": ["0", "5"], "own_noise": [2 * own, own / 2], "weight_noise": [weights, weights], "noise": [1.0, 3 * own],
        "shift": [shift, None], "range_over_rms": [2.0, 8.0], "silent": [silent, 0.0], "margin": 6.0, "logit_noise": 1.5,
    }  # fmt: skip


def store(recipe: BaseRecipe, clean: float, perturbed: list[float], damage: dict | None = None, law: str = "bit_flips", trained_in: str = "bf16") -> None:
    base = Base("cifar10", "vgg11", recipe, 0.5)
    metrics = {"clean": clean, "perturbed": perturbed, "changed_bits": [0.01] * len(perturbed), "images": 2000}
    metrics |= {"base_training": {"provenance": {"precision": trained_in}}}
    Store("paper").write(Cell("accuracy", base, law=law, patterns=len(perturbed)), metrics, ORIGIN)
    if damage:
        some = {"clean": clean, "perturbed": perturbed[:1], "images": 500}
        Store("paper").write(Cell("damage", base, law=law, patterns=1, images=500), some | damage, ORIGIN)


def records() -> list[dict]:
    return tables.stored("paper") + tables.stored("paper", kind="damage")


@pytest.fixture
def known(workshop):
    store(PLAIN, 80.0, [40.0, 50.0], inside())
    store(MIDDLE, 84.0, [60.0, 66.0], inside(own=0.08, weights=0.1))
    store(CLIPPED, 82.0, [78.0, 80.0], inside(own=0.05, weights=0.025))
    store(RELEASE, 70.0, [30.0, 32.0])
    return records()


def test_known_records_give_a_known_frame(known):
    rows = page.frame(known).set_index("recipe")
    assert list(rows.columns) == [name for name in recipes.COLUMNS if name != "recipe"]
    plain, middle = rows.loc["decay 0, 6 epochs"], rows.loc["decay 0.0005, 6 epochs"]
    assert (plain["CA"], plain["PA"], plain["PA_std"], plain["PA_worst"], plain["to_recover"]) == (80, 45, 5, 40, 35)
    wanted = {"own_noise": 0.08, "weight_noise": 0.1, "gain": 0.8, "range_over_rms": 4, "silent_percent": 25}
    wanted |= {"shift_percent": 30, "logit_noise": 0.24, "margin_over_noise": 4}
    assert middle[list(wanted)].astype(float).to_dict() == pytest.approx(wanted)
    release = rows.loc["release: decay 0, constant rate, 6 epochs"]
    assert release["to_recover"] == 39 and release[list(recipes.STATISTICS)].isna().all()
    assert rows.loc["decay 0, clipped at 0.1, 6 epochs", "clipping"] == 0.1


def test_trainings_in_other_arithmetic_are_told_apart(known):
    assert "Trained in" not in page.summary(page.frame(known), "paper").data
    store(dataclasses.replace(MIDDLE, epochs=3), 80.0, [50.0, 52.0], trained_in="fp32")
    assert "Trained in bf16 (4) and fp32 (1), see the table." in page.summary(page.frame(records()), "paper").data
    assert page.frame(records()).set_index("recipe").loc["decay 0.0005, 3 epochs", "precision"] == "fp32"


def test_the_order_of_records_does_not_matter(known):
    assert tables.to_csv(page.frame(known)) == tables.to_csv(page.frame(known[::-1]))
    pd.testing.assert_frame_equal(recipes.changes(known), recipes.changes(known[::-1]))


def test_changes_are_pairs_that_differ_in_one_value(known):
    found = recipes.changes(known).set_index("changed")
    assert sorted(found.index) == ["clipping", "decay", "schedule"]
    decay = found.loc["decay"]
    assert (decay["from"], decay["to"], decay["at"]) == ("0", "0.0005", "schedule one-cycle 0.1, epochs 6")
    assert decay["PA_change"] == 18 and decay["PA_error"] == pytest.approx(2) and decay["CA_change"] == 4  # +20 and +16
    assert decay[["own_noise", "weight_noise", "gain"]].astype(float).tolist() == pytest.approx([0.4, 1, 0.4])
    assert found.loc["clipping", "PA_change"] == 34 and found.loc["schedule", "to"] == "constant 0.02"
    assert np.isnan(found.loc["schedule", "own_noise"])  # accuracy alone is measured there


def test_training_on_bit_errors_is_a_change_of_its_own(known):
    store(dataclasses.replace(MIDDLE, bit_errors=0.005), 83.0, [70.0, 76.0], inside(own=0.04, weights=0.1))
    rows = page.frame(records()).set_index("recipe")
    assert rows.loc["decay 0.0005, bit errors 0.5 %, 6 epochs", "bit_errors_percent"] == 0.5
    assert (rows.drop("decay 0.0005, bit errors 0.5 %, 6 epochs")["bit_errors_percent"] == 0).all()
    found = recipes.changes(records()).set_index("changed")
    assert sorted(found.index) == ["clipping", "decay", "schedule", "training on bit errors"]  # decay is not compared across it
    row = found.loc["training on bit errors"]
    assert (row["from"], row["to"], row["at"]) == ("0 %", "0.5 %", "decay 0.0005, schedule one-cycle 0.1, epochs 6")
    assert row["PA_change"] == 10 and row["CA_change"] == -1 and row["own_noise"] == pytest.approx(0.5)
    assert "**training on bit errors 0 % → 0.5 %** (decay 0.0005, schedule one-cycle 0.1, epochs 6): PA +10.0" in page.single(records()).data


def test_correlations_are_spearman_s(workshop):
    values = np.random.default_rng(0).uniform(0.1, 1, (6, 2)).round(3)
    for number, (recipe, (own, silent)) in enumerate(zip(SIX, values)):
        store(recipe, 80.0, [40.0 + (3 * number) % 7] * 2, inside(own=own, silent=silent))
    found = recipes.correlations(page.frame(records())).set_index("column")
    accuracy = [(3 * number) % 7 for number in range(6)]
    for name, column in (("own_noise", 0), ("silent_percent", 1)):
        assert found.loc[name, "rho"] == pytest.approx(spearmanr(values[:, column], accuracy).statistic)
    assert (found["models"] == 6).all() and found.loc["shift_percent", "verdict"] == recipes.NEVER


@pytest.mark.parametrize(
    ("rho", "sign", "models", "words"),
    [
        (0.9, 1, 6, recipes.GOES), (-0.9, -1, 6, recipes.GOES), (0.9, -1, 6, recipes.AGAINST), (0.5, 1, 6, recipes.CHANCE),
        (np.nan, 1, 6, recipes.NEVER), (1.0, 1, 4, recipes.FEW),
    ],
)  # fmt: skip
def test_a_verdict_needs_models_a_size_and_the_right_sign(rho, sign, models, words):
    assert recipes.verdict(rho, sign, models) == words


@pytest.mark.parametrize(("step", "words"), [(0.05, recipes.AGAINST), (-0.05, recipes.GOES)])
def test_the_meaning_follows_the_numbers(workshop, step, words):
    for number, recipe in enumerate(SIX):
        store(recipe, 80.0, [40.0 + 5 * number] * 2, inside(own=0.5 + step * number))
    rows = page.frame(records())
    assert "Download as CSV" in page.correlation_table(rows).data
    text = page.meaning(rows).data
    assert f"{words}: (c) what a layer makes of them (ρ {'+' if step > 0 else '−'}1.00)" in text
    assert f"{recipes.NEVER}: (a) silent channels" in text
    assert "leaves 15.0 or 40.0 points to recover" in text and "(decay 0.0005, 6 epochs) has a PA of 65.0 %" in text


def test_recipes_that_do_the_same_hardly_matter(workshop):
    for recipe in (PLAIN, MIDDLE):
        store(recipe, 80.0, [70.0, 71.0], inside())
    rows = page.frame(records())
    text = page.meaning(rows).data
    assert "it hardly matters" in text and "No setting has 5 recipes whose layers" in text and "no conclusion" not in text
    assert "No setting has 5 recipes" in page.correlation_table(rows).data


def test_sentences_say_what_is_there(known):
    rows = page.frame(known)
    assert "4 recipes, each trained once: PA from 31.0 %" in page.summary(rows, "paper").data
    assert "3.0 to 39.0 points, 39.0 with `release`" in page.summary(rows, "paper").data
    text = page.single(known).data
    assert "**decay 0 → 0.0005** (schedule one-cycle 0.1, epochs 6): PA +18.0 ± 2.0 points; CA +4.0." in text
    assert "Own noise × 0.4 (1 in the weights, 0.4 by what a layer makes of it): mostly by what a layer makes of it." in text
    assert "Own noise × 0.25 (0.25 in the weights, 1 by what a layer makes of it): mostly in the weights." in text


@pytest.mark.parametrize(("after", "words"), [(70.0, "is a cause"), (41.0, "does little")])
def test_cuts_by_hand(workshop, after, words):
    rows = [{"cut": 2.0, "clean": 76.0, "perturbed": [after]}]
    store(PLAIN, 80.0, [40.0, 50.0], inside() | {"after_cuts": rows})
    found = recipes.after_cuts(records())
    assert found[["cut", "CA", "PA", "CA_change", "PA_change"]].values.tolist() == [[2, 76, after, -4, after - 40]]
    text = page.cuts(records()).data
    assert f"PA rises in 1 of 1 model, on average by {after - 40:+.1f} points, and CA changes by −4.0" in text and words in text
    assert "1 chip, 500 images" in text
    store(MIDDLE, 80.0, [40.0, 50.0], inside() | {"clean": 80.0, "perturbed": [40.0], "after_cuts": [{"cut": 2.0, "clean": 80.0, "perturbed": [40.0]}]})
    assert "and CA changes by −4.0 (nothing changes in 1 model). So" in page.cuts(records()).data, "a cut beyond all weights says nothing"
    assert "Download as CSV" in page.cut_table(records()).data


def test_pictures_say_in_words_what_they_show(known):
    ladders, layers = page.ladders(page.frame(known)).data, page.layers(known).data
    assert ladders.count("<img") == layers.count("<img") == 1
    assert "decay 0, clipped at 0.1, 6 epochs: CA 82, BitFlips PA 79 %" in ladders
    assert "decay 0, clipped at 0.1, 6 epochs: 0.05 a layer, 0.15 in the logits" in layers and "release" not in layers
    for shown in (page.table(page.frame(known)), page.change_table(known)):
        assert "Download as CSV" in shown.data
    shown = page.table(page.frame(known)).data
    assert ">0.0005</td>" in shown and "weight decay 0.0005" not in shown  # a small number is no zero, and so not said once
    said = "setting CIFAR-10 VGG11 at 0.5 of its width (2 chips × 2,000 images), BER 1 %; error model BitFlips"
    assert said in page.change_table(known).data


def test_nothing_measured_is_said(workshop):
    rows = page.frame([])
    assert rows.empty and list(rows.columns) == recipes.COLUMNS
    assert "Not measured yet" in page.summary(rows, "paper").data and "nflib sweep base_recipe" in page.summary(rows, "paper").data
    assert "Nothing is measured" in page.meaning(rows).data and "Nothing is measured" in page.single([]).data
    assert "Nothing measured" in page.ladders(rows).data and "Nothing measured" in page.layers([]).data
    assert all("(0 rows)" in t.data for t in (page.table(rows), page.change_table([]), page.cut_table([])))


def test_the_notebooks_defaults_are_the_smoke_grid():
    given = {name: value for name, value in notebooks.parameters("base_recipe").items() if name not in ("device", "measure")}
    assert grids.base_recipe(**given) == profiles.cells("smoke", "base_recipe")


def test_a_middle_recipe_that_has_a_name_keeps_it():
    cells = profiles.cells("smoke", "base_recipe")
    assert {cell.base.recipe.name for cell in cells} == {"release", "modern", "clipped", "randbet", "varied"}
    assert sum(cell in profiles.cells("smoke", "accuracy") for cell in cells) == 4  # both names under both error models
    assert grids.varied("smoke").name == "modern" and grids.varied("smoke", epochs=3).name == "varied"


def test_the_first_look_can_be_picked_by_its_width():
    cells = profiles.cells("paper", "base_recipe")
    short = [cell for cell in cells if cell.key("width") == 0.5]
    assert short and {cell.base.recipe.epochs for cell in short} == {3, 6, 12}
    assert {(cell.patterns, cell.images) for cell in short} == {(20, 2000), (5, 500)}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"width": "2"}, "width is 2"),
        ({"epoch_counts": "0"}, "a number of epochs is 0; it must be at least 1"),
        ({"clippings": "-0.1"}, "a clipping is -0.1; it must be at least 0"),
        ({"bit_error_rates": "1.5"}, "bit-error rate is 1.5; allowed are fractions in"),
        ({"base_recipes": "randbeth"}, "did you mean 'randbet'"),
        ({"schedules": "one_cycl"}, "did you mean 'one_cycle'"),
        ({"weight_decays": "-1"}, "a weight decay is -1"),
    ],
)
def test_values_out_of_range_are_refused(given, words, refused):
    with refused(words):
        notebooks.strict("base_recipe", given)


def test_the_notebook_runs_from_nothing_with_other_parameters(workshop, tmp_path):
    """Stuck-at cells, clipping and training on bit errors; then more flips, another schedule and more epochs."""

    def run(**changes: str) -> str:
        small = {"patterns": "2", "epochs": "1", "width": "0.0625", "images": "20", "epoch_counts": "[]"}
        small |= {"base_recipes": "modern", "weight_decays": "[]", "clippings": "[]", "bit_error_rates": "[]", "schedules": "[]"}
        output = notebooks.execute("base_recipe", tmp_path / "out.ipynb", small | changes)
        return json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)

    shown = run(error_models="stuck_at", clippings="0.05", bit_error_rates="0.02", weight_decays="0")
    assert "StuckAt, BER 1 %" in shown and "clipping 0 → 0.05" in shown and "training on bit errors 0 % → 2 %" in shown
    shown = run(error_models="bit_flips", rate="0.02", schedules="constant", epoch_counts="2")
    assert "VGG11 at 0.0625 of its width (2 chips × 360 images), BitFlips, BER 2 %" in shown and "constant 0.02" in shown
    cells = [cell_of(json.loads(path.read_text())["cell"]) for path in (results() / "records" / "smoke").glob("*/*.json")]
    assert len(cells) == 20 and sum(cell.table == "damage" for cell in cells) == 10  # six recipes, then four
