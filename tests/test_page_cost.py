"""The page "cost": what a point is, by hand; the sentences follow the numbers; the notebook from nothing."""

import dataclasses
import json

import pandas as pd
import pytest

from nflib import grids, notebooks, profiles, tables
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.names import UserError
from nflib.pages import cost as page
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASE = Base("cifar10", "vgg11", BaseRecipe())
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip", "threads": 2, "precision": "bf16"}
SETTING = ("cifar10", ["vgg11"], "release", ["conv_s"], "release_map", 0.01)
PLAIN = GeneratorRecipe("conv_s", models_per_step=2, schedule="one_cycle")
TOLD = GeneratorRecipe("class_patterns", models_per_step=1, steps=5)
IMITATED = dataclasses.replace(PLAIN, steps=0, teacher=TOLD, imitation_steps=20)
OFFICIAL = GeneratorRecipe("conv_s")
TEACHING = 500_000  # model-images of TOLD in these records


def store(perturbed: list[float], recipe=None, images: int = 0, base: Base = BASE, seconds: float = 60.0, held=(), **more) -> None:
    """The record of a point, and that of its validation images: `held`, by default as the test images; None for none."""
    training = recipe and {"model_images": images, "seconds": seconds}
    if recipe and recipe.teacher:
        training["teacher"] = {"sha256": "", "model_images": TEACHING, "seconds": 30.0}
    metrics = {"clean": 88.0, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    metrics["generator_training"] = training
    origin = ORIGIN | {name: more.pop(name) for name in ("device", "threads") if name in more}
    cell = Cell("accuracy", base, recipe, patterns=len(perturbed), **more)
    Store("paper").write(cell, metrics, origin)
    if held is not None:
        Store("paper").write(cell.on_validation, metrics | {"perturbed": held or perturbed}, origin)


def stored() -> list[dict]:
    return tables.stored("paper") + tables.stored("paper", kind="validation")


def known(official: float = 60.0, imitated: float = 70.0, **more) -> list[dict]:
    """Records of one point a recipe, two of the official one, of which the longer has PA(NF) `official`."""
    store([40.0, 50.0])
    store([44.0, 56.0], dataclasses.replace(OFFICIAL, steps=10), 25_600_000)
    store([official - 5, official + 5], dataclasses.replace(OFFICIAL, steps=30), 76_800_000, **more)
    store([50.0, 61.0], dataclasses.replace(PLAIN, steps=30), 250_000)
    store([imitated - 4, imitated + 4], IMITATED)
    store([67.0, 75.0], dataclasses.replace(IMITATED, steps=30), 250_000, seconds=90.0)
    return stored()


def test_known_records_give_a_known_frame(workshop):
    rows = page.frame(known())
    assert list(rows["how"]) == [page.ALONE, page.OFFICIAL, page.OFFICIAL, page.PLAIN, page.IMITATED, page.BOTH]
    assert list(rows["model_images"].dropna()) == [25_600_000, 76_800_000, 250_000, 500_000, 750_000]
    assert list(rows["training_minutes"].dropna()) == [1, 1, 1, 1.5, 2]
    assert list(rows["PA_NF"].dropna()) == [50, 60, 55.5, 70, 71] and list(rows["RP"].dropna()) == [5, 15, 10.5, 25, 26]
    assert list(rows["models_per_step"].dropna()) == [10, 10, 2, 2] and list(rows["steps"]) == [0, 10, 30, 30, 0, 30]
    assert list(rows["validation_PA_NF"].dropna()) == [50, 60, 55.5, 70, 71] and list(rows["validation_RP"].dropna()) == [5, 15, 10.5, 25, 26]
    assert set(rows["hardware"]) == {"a chip, 2 threads, bf16"} and list(rows["published_PA_NF"].dropna()) == 5 * [66.3]


def test_the_order_of_records_does_not_matter(workshop):
    records = known()
    assert tables.to_csv(page.frame(records)) == tables.to_csv(page.frame(records[::-1]))


def test_sentences_say_how_many_times_fewer(workshop):
    rows = page.frame(known())
    text = page.summary(rows, "paper").data
    for said in (
        "Alone the base model is right on 45.0 % of the images under errors.",
        "The best of ours: imitation, then Eq. 3 (20 + 30 steps), 71.0 % (clean 88.0 %) with 750,000 model-images.",
        "best on validation images of 10 and 30 steps, with 30: 60.0 % (clean 88.0 %) with 76,800,000 model-images.",
        "under errors: imitation only (20 steps), 70.0 % (clean 88.0 %) with 500,000 model-images, **154 times fewer**.",
        "The paper prints 66.3 % for its recipe: 58,800 steps, 150.5 M model-images.",
        "reaches that: imitation only (20 steps), 70.0 % (clean 88.0 %) with 500,000 model-images. But the base models differ:",
        "alone theirs is right on 42.2 % and ours on 45.0 %. So the recovery is +24.1 points there and +25.0 here, with model-images 301 times fewer.",
    ):
        assert said in text
    verdict = page.meaning(rows).data
    assert "**Yes**: imitation only (20 steps) takes 500,000 instead of 76,800,000, 154 times fewer." in verdict
    assert "at its full length of 58,800 steps was not run here." in verdict and "training seed 0" in verdict


def test_the_table_leaves_out_base_models_that_no_generator_was_trained_for(workshop):
    rows = page.frame(known())
    other = rows[rows["how"] == page.ALONE].assign(base_model="VGG16", PA=12.3)
    assert "12.3" not in page.table(pd.concat([rows, other])).data and "12.3" in page.table(other).data
    assert f"({len(rows)} rows)" in page.table(pd.concat([rows, other])).data


def test_the_cheapest_point_counts_and_not_the_best(workshop):
    text = page.summary(page.frame(known(official=55.0)), "paper").data
    assert "Eq. 3 from the start (30 steps), 55.5 % (clean 88.0 %) with 250,000 model-images, **307 times fewer**" in text


def test_validation_images_choose_and_test_images_are_quoted(workshop):
    """On validation images the plain recipe reaches the official 60 %, on test images it does not."""
    store([40.0, 50.0])
    store([55.0, 65.0], dataclasses.replace(OFFICIAL, steps=30), 76_800_000)
    store([50.0, 60.0], dataclasses.replace(PLAIN, steps=30), 250_000, held=[58.0, 66.0])
    store([70.0, 74.0], IMITATED, held=[52.0, 62.0])
    rows = page.frame(stored())
    text = page.summary(rows, "paper").data
    assert "The best of ours: Eq. 3 from the start (30 steps), 55.0 % (clean 88.0 %)" in text
    assert "at least as good under errors: that same one, **307 times fewer**" in text
    assert "**Yes**: Eq. 3 from the start (30 steps) takes 250,000 instead of 76,800,000" in page.meaning(rows).data


def test_without_validation_images_nothing_is_chosen(workshop):
    store([40.0, 50.0], held=None)
    store([55.0, 65.0], dataclasses.replace(OFFICIAL, steps=30), 76_800_000, held=None)
    store([70.0, 74.0], IMITATED, held=None)
    rows = page.frame(stored())
    assert "No point is measured on validation images, so none is chosen." in page.summary(rows, "paper").data
    assert "Cannot be told" in page.meaning(rows).data and page.curves(rows).data.count("<img") == 1


@pytest.mark.parametrize(
    ("numbers", "verdict", "summary"),
    [
        ({"official": 80.0}, "**No**: none of ours is as good", "None of ours is as good. The paper"),
        ({"official": 71.0, "imitated": 55.0}, "**Yes**: imitation, then Eq. 3 (20 + 30 steps)", "**102 times fewer**"),
    ],
)
def test_the_verdict_follows_the_numbers(workshop, numbers, verdict, summary):
    rows = page.frame(known(**numbers))
    assert verdict in page.meaning(rows).data and summary in page.summary(rows, "paper").data


def test_a_recovery_within_its_error_is_nothing_to_be_compared_with(workshop):
    rows = page.frame(known()).assign(validation_RP_error=8.0)  # the best official recovery is 15 points
    assert "no official run has a sure recovery here" in page.meaning(rows).data
    text = page.summary(rows, "paper").data
    assert "nothing yet that ours could be compared with. Our cheapest sure recovery: imitation only (20 steps), 70.0 %" in text


def test_a_smaller_recovery_than_the_paper_s_is_called_less(workshop):
    rows = page.frame(known(imitated=68.0))
    assert "+24.1 points there and +23.0 here, which is less." in page.summary(rows, "paper").data


def test_fewer_is_said_only_of_fewer(workshop):
    store([40.0, 50.0])
    store([55.0, 65.0], dataclasses.replace(OFFICIAL, steps=10), 250_000)
    store([60.0, 70.0], IMITATED)
    rows = page.frame(stored())
    assert "**No**: imitation only (20 steps) takes 500,000 instead of 250,000, not fewer." in page.meaning(rows).data
    assert "No point of ours reaches that." in page.summary(rows, "paper").data


def test_without_an_official_run_nothing_is_claimed(workshop):
    rows = page.frame(known()).query("how != @page.OFFICIAL")
    assert "The official recipe is not measured here." in page.summary(rows, "paper").data
    assert "Cannot be told: no official run is measured here." in page.meaning(rows).data


def test_the_official_recipe_at_its_full_length_is_not_said_to_be_missing(workshop):
    store([40.0, 50.0])
    store([70.0, 80.0], OFFICIAL, page.FULL_IMAGES)
    assert "Not shown" not in page.meaning(page.frame(stored())).data


@pytest.mark.parametrize("change", [{"law": "bit_flips"}, {"base": dataclasses.replace(BASE, recipe=BaseRecipe("modern"))}])
def test_the_paper_stands_beside_the_official_setting_only(workshop, change):
    store([40.0, 50.0], **change)
    store([60.0, 70.0], dataclasses.replace(OFFICIAL, law=change.get("law", OFFICIAL.law), steps=9), 1000, **change)
    rows = page.frame(stored())
    assert rows["published_PA_NF"].isna().all() and "The paper prints" not in page.summary(rows, "paper").data
    assert "None of ours is as good" in page.summary(rows, "paper").data


def test_pictures_say_in_words_what_they_show(workshop):
    rows = page.frame(known())
    shown = page.curves(rows).data
    assert shown.count("<img") == 1 and "official recipe: 50.0 % at 25,600,000, 60.0 % at 76,800,000" in shown
    assert "the paper 66.3 %" in shown and "full length: 150.5 million" in shown and "Base model alone 45.0 %" in shown
    shown = page.minutes(rows).data
    assert shown.count("<img") == 1 and "71.0 % at 2" in shown and "Trained on a chip, 2 threads, bf16" in shown


@pytest.mark.parametrize("other", [{"device": "another chip"}, {"threads": 1}])
def test_minutes_of_several_devices_are_not_drawn(workshop, other):
    shown = page.minutes(page.frame(known(**other))).data
    assert "<img" not in shown and "several devices made these points" in shown and "a chip, 2 threads, bf16" in shown


def test_nothing_measured_is_said(workshop):
    rows = page.frame([])
    assert rows.empty and list(rows.columns) == page.COLUMNS
    assert "Not measured yet" in page.summary(rows, "paper").data and "nflib sweep cost" in page.summary(rows, "paper").data
    assert "(0 rows)" in page.table(rows).data and "Nothing is measured" in page.meaning(rows).data
    assert "Nothing measured" in page.curves(rows).data and "Nothing measured" in page.minutes(rows).data


def test_without_its_base_model_a_generator_is_a_row_without_a_point(workshop):
    store([60.0, 70.0], IMITATED)
    rows = page.frame(stored())
    assert len(rows) == 1 and rows["PA_NF"].notna().all() and rows["RP"].isna().all() and "(1 row)" in page.table(rows).data
    assert "<img" not in page.curves(rows).data and "Nothing is measured" in page.meaning(rows).data


def test_a_grid_has_a_cell_for_each_recipe_and_length():
    cells = grids.cost("paper", *SETTING, [10, 58800], [30], [100, 50], 3)
    assert cells[1::2] == [cell.on_validation for cell in cells[::2]]
    assert {(cell.table, cell.first_seed) for cell in cells[1::2]} == {("validation", 40000)}
    cells = cells[::2]
    lengths = [(c.generator.imitation_steps, c.generator.steps, c.generator.models_per_step) for c in cells if c.generator]
    ours = grids.GENERATOR_RECIPES["paper"].models_per_step
    assert lengths == [(0, 10, 10), (0, 58800, 10), (0, 30, ours), (100, 0, ours), (50, 0, ours), (100, 30, ours)]
    assert cells[0].generator is None and len(cells) == 7 and {cell.base for cell in cells} == {cells[0].base}
    assert cells[2].generator == GeneratorRecipe("conv_s")  # the defaults are the official code's
    assert [grids.is_official(cell.generator) for cell in cells[1:]] == [True, True, False, False, False, False]


@pytest.mark.parametrize("empty", range(3))
def test_a_recipe_without_lengths_is_left_out(empty):
    lengths = [[10], [20], [30]]
    lengths[empty] = []
    assert len(grids.cost("smoke", *SETTING, *lengths, 3)) == 2 * (4, 3, 3)[empty]


def test_unknown_names_are_refused(refused):
    with refused("did you mean 'conv_s'"):
        grids.cost("smoke", *SETTING[:3], ["conv_ss"], *SETTING[4:], [1], [1], [1], 3)


@pytest.mark.parametrize("name", ["official_steps", "steps", "imitation_steps"])
def test_lengths_are_whole_numbers_from_one(name):
    assert notebooks.strict("cost", {name: "5,7"}) == {name: [5, 7]} and notebooks.strict("cost", {name: "[]"}) == {name: []}
    for wrong in ("0", "2.5", "-3", "many"):
        with pytest.raises(UserError):
            notebooks.strict("cost", {name: wrong})


def test_the_notebooks_defaults_are_the_smoke_grid():
    given = {name: value for name, value in notebooks.parameters("cost").items() if name not in ("device", "measure")}
    assert grids.cost(**given) == profiles.cells("smoke", "cost")


def test_equal_cells_are_shared_with_the_mechanism_page():
    shared = [set(profiles.first_look(table)) for table in ("cost", "mechanism")]
    lengths = {(cell.generator.imitation_steps, cell.generator.steps) for cell in set.intersection(*shared) if cell.generator}
    assert lengths == {(0, 300), (3700, 0), (3700, 300)}
    assert {cell.generator.batch for cell in shared[0] - shared[1] if cell.generator and grids.is_official(cell.generator)} == {256}
    assert len(set(profiles.cells("smoke", "cost")) & set(profiles.cells("smoke", "mechanism"))) == 4


def test_the_notebook_runs_from_nothing_with_other_parameters(trained_workshop, tmp_path):
    """Flips at 2 % with another generator, all recipes; then the other base recipe and the official recipe only."""

    def run(**changes: str) -> str:
        given = {"patterns": "2", "rate": "0.02", "official_steps": "1,2", **changes}
        output = notebooks.execute("cost", tmp_path / "out.ipynb", given)
        return json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)

    shown = run(generator_names="unet_s", error_model="bit_flips", steps="2,3", imitation_steps="4")
    assert "VGG11 with UNetS" in shown and "BitFlips, BER 2 %" in shown and "best on validation images of 1 and 2 steps" in shown
    shown = run(base_recipe="modern", steps="[]", imitation_steps="[]")
    assert "base recipe modern" in shown and "ConvS" in shown and "UNetS" not in shown
    cells = [json.loads(path.read_text())["cell"] for path in (results() / "records" / "smoke" / "accuracy").glob("*.json")]
    lengths = [(c["generator"].get("imitation_steps", 0), c["generator"]["steps"]) for c in cells if c["generator"]]
    assert sorted(lengths) == [(0, 1), (0, 1), (0, 2), (0, 2), (0, 2), (0, 3), (4, 0), (4, 2), (4, 3)]
