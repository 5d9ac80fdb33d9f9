"""The page "mechanism": what a row is, by hand; the verdicts follow the numbers; the notebook from nothing."""

import dataclasses
import json

import pytest

from nflib import energy, generators, grids, models, notebooks, profiles, tables
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.pages import mechanism as page
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASE = Base("cifar10", "vgg11", BaseRecipe())
ENCODER = Base("cifar10", "conv_s_encoder", BaseRecipe("modern"))
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}
PLAIN = GeneratorRecipe("conv_s", models_per_step=2, steps=10)
TOLD = dataclasses.replace(PLAIN, name="class_patterns")
IMITATED = dataclasses.replace(PLAIN, imitation_steps=5, teacher=TOLD)


def store(clean: float, perturbed: list[float], recipe=None, base: Base = BASE, **more) -> None:
    training = recipe and {"model_images": 3_000_000, "seconds": 60.0}
    if recipe and recipe.teacher:
        training["teacher"] = {"sha256": "", "model_images": 500_000, "seconds": 30.0}
    metrics = {"clean": clean, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    metrics |= {"generator_training": training, "teller_training": {"seconds": 120.0}}
    Store("paper").write(Cell("accuracy", base, recipe, patterns=len(perturbed), **more), metrics, ORIGIN)


@pytest.fixture
def known(workshop):
    store(88.0, [40.0, 50.0])
    store(88.0, [39.0, 51.0], dataclasses.replace(TOLD, name="universal"))
    store(99.0, [94.0, 98.0], TOLD)
    store(84.0, [81.0, 83.0], TOLD, teller=ENCODER)
    store(87.0, [44.0, 52.0], PLAIN)
    store(84.0, [60.0, 66.0], dataclasses.replace(IMITATED, steps=0))
    store(86.0, [68.0, 72.0], IMITATED)
    store(85.0, [80.0, 82.0], base=ENCODER)
    return tables.stored("paper")


def test_known_records_give_a_known_frame(known):
    rows = page.frame(known)
    assert list(rows["how"]) == list(page.HOW)
    assert list(rows["RP"].dropna()) == [0, 51, 37, 3, 18, 25] and list(rows["PA_NF"].dropna()) == [45, 96, 82, 48, 63, 70]
    assert list(rows["model_images_million"].dropna()) == [3, 3, 3, 3, 3.5, 3.5]
    assert list(rows["training_minutes"].dropna()) == [1, 1, 3, 1, 1.5, 1.5]
    base, small = energy.macs(models.build("vgg11")) / 1e6, energy.macs(generators.build("conv_s")) / 1e6
    encoder = energy.macs(models.build("conv_s_encoder")) / 1e6
    assert list(rows["macs_million"]) == pytest.approx([*3 * [base], base + encoder, *3 * [base + small], encoder])
    assert encoder < small < base
    assert list(rows["published_PA_NF"].dropna()) == [43.0, 66.3, 66.3, 66.3]  # UIP, Table 11; ConvS, Table 12


@pytest.mark.parametrize("change", [{"law": "bit_flips"}, {"base": dataclasses.replace(BASE, recipe=BaseRecipe("modern"))}])
def test_the_paper_stands_beside_the_official_setting_only(workshop, change):
    store(87.0, [44.0, 52.0], dataclasses.replace(PLAIN, law=change.get("law", PLAIN.law)), **change)
    assert page.frame(tables.stored("paper"))["published_PA_NF"].isna().all()


def test_the_order_of_records_does_not_matter(known):
    assert tables.to_csv(page.frame(known)) == tables.to_csv(page.frame(known[::-1]))


def test_sentences_say_what_is_there(known):
    rows = page.frame(known)
    text = page.summary(rows, "paper").data
    for said in (
        "Alone it is right on 45.0 % of the images under errors, on 88.0 % without; one pattern for all images brings it to 45.0 %, "
        "a pattern a class, told the label, brings it to 96.0 %.",
        "Imitating class patterns, and nothing else, ends higher than Eq. 3 from the start for 1 of 1 generator (by +15.0 points).",
        "Imitation before the same steps of Eq. 3 ends higher than Eq. 3 from the start for 1 of 1 generator (by +22.0 points).",
        "Told the class by the ConvS encoder in place of the label, the patterns bring it to **82.0 %** (worst chip 81.0 %",
        "the paper's best generator gives 87.2 % here.",
        "Best of the 1 generator measured, of six: ConvS, 45.0 → 70.0 %, clean 86.0 % (the paper: 66.3 %).",
        "The encoder of ConvS alone, as a classifier at nominal voltage, tells 85.0 %",
    ):
        assert said in text
    verdict = page.meaning(rows).data
    assert "enough for 96.0 % under errors (45.0 % alone, 88.0 % without errors), where one picture for all gives 45.0 %" in verdict
    assert "for 1 of 1 generator the encoder alone is more accurate" in verdict and "and for 1 of 1 than the paper's.\n* Where the encoder is more accurate (by" in verdict


def test_the_verdict_follows_the_numbers(workshop):
    store(88.0, [40.0, 50.0])
    store(88.0, [60.0, 68.0], dataclasses.replace(TOLD, name="universal"))
    store(90.0, [59.0, 69.0], TOLD)
    store(86.0, [78.0, 82.0], PLAIN)
    store(70.0, [30.0, 32.0], base=ENCODER)
    verdict = page.meaning(page.frame(tables.stored("paper"))).data
    assert "Where the encoder is more accurate" not in verdict
    assert "nothing speaks for the hypothesis" in verdict and "for 0 of 1 generator" in verdict


def test_pictures_say_in_words_what_they_show(known):
    rows = page.frame(known)
    shown = page.ladders(rows).data + page.duels(rows).data
    assert shown.count("<img") == 2
    assert "Alone 45 %" in shown and "ConvS, generator, imitation, then Eq. 3: 70 %" in shown and "ConvS encoder: 85 % with" in shown


def test_a_base_model_without_class_patterns_is_drawn_beside_the_encoders(workshop):
    store(88.0, [40.0, 50.0])
    store(87.0, [44.0, 52.0], PLAIN)
    store(85.0, [80.0, 82.0], base=ENCODER)
    shown = page.duels(page.frame(tables.stored("paper"))).data
    assert shown.count("<img") == 1 and "ConvS encoder: 85 % with" in shown


def test_a_data_set_that_the_paper_does_not_have_is_shown_without_its_numbers(workshop):
    own = dataclasses.replace(BASE, dataset="digits")
    store(88.0, [40.0, 50.0], base=own)
    store(84.0, [81.0, 83.0], TOLD, base=own, teller=dataclasses.replace(ENCODER, dataset="digits"))
    store(85.0, [80.0, 82.0], base=dataclasses.replace(ENCODER, dataset="digits"))
    rows = page.frame(tables.stored("paper"))
    assert "Alone 45 %" in page.ladders(rows).data and page.duels(rows).data.count("<img") == 1
    assert "paper" not in page.summary(rows, "paper").data.partition("digits VGG11")[2]


def test_the_paper_s_six_generators_are_known_for_the_official_setting_only():
    key = ("CIFAR-10", "VGG11", "release", 12, "ReleaseMap", 1.0)
    assert tables.printed(key) == {"ConvL": 87.2, "ConvS": 66.3, "DeConvL": 87.2, "DeConvS": 68.2, "UNetL": 83.6, "UNetS": 72.7}
    assert tables.printed((*key[:2], "modern", *key[3:])) == tables.printed((*key[:4], "BitFlips", 1.0)) == {}


def test_nothing_measured_is_said(workshop):
    rows = page.frame([])
    assert rows.empty and list(rows.columns) == page.COLUMNS
    assert "Not measured yet" in page.summary(rows, "paper").data and "Nothing is measured" in page.meaning(rows).data
    assert "(0 rows)" in page.table(rows).data and "Nothing measured" in page.ladders(rows).data + page.duels(rows).data


def test_the_notebooks_defaults_are_the_smoke_grid():
    given = {name: value for name, value in notebooks.parameters("mechanism").items() if name not in ("device", "measure")}
    assert grids.mechanism(**given) == profiles.cells("smoke", "mechanism")


def test_class_patterns_are_taught_once_for_all_generators_of_a_setting():
    recipes = [cell.generator for cell in profiles.cells("smoke", "mechanism") if cell.generator]
    taught = [recipe for recipe in recipes if recipe.teacher]
    told = {recipe for recipe in recipes if recipe.name == "class_patterns"}
    assert len(told) == 1 and len(taught) == 12 and {recipe.teacher for recipe in taught} == told


def test_the_notebook_runs_from_nothing_with_other_parameters(workshop, tmp_path):
    """Flips at 2 % with one generator; then the other base recipe with another one."""

    def run(**changes: str) -> str:
        output = notebooks.execute("mechanism", tmp_path / "out.ipynb", {"patterns": "2", "rate": "0.02", **changes})
        return json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)

    shown = run(generator_names="conv_s", error_model="bit_flips")
    assert "BitFlips, BER 2 %" in shown and "The encoder of ConvS alone" in shown
    shown = run(generator_names="unet_s", base_recipe="modern")
    assert "base recipe modern" in shown and "The encoder of UNetS alone" in shown
    cells = [json.loads(path.read_text())["cell"] for path in (results() / "records" / "smoke" / "accuracy").glob("*.json")]
    assert len(cells) == 16 and sum(bool(cell["generator"] and cell["generator"].get("teacher")) for cell in cells) == 4
