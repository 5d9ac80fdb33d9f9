"""Page "tsne": known records give a known frame; the notebook runs from nothing with other parameters."""

import dataclasses
import json

import numpy as np
import pytest

from nflib import notebooks, tables
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.pages import tsne
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASE = Base("cifar10", "resnet18", BaseRecipe())
ALONE = Cell("tsne", BASE, patterns=3, images=60)
WITH = dataclasses.replace(ALONE, generator=GeneratorRecipe("conv_l"))
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip", "threads": 1, "precision": "fp32", "torch": "2"}
LABELS = np.arange(60, dtype=np.uint8) % 10


def store(cell: Cell, clean: float, perturbed: list[float], outputs: list[float], flat: list[float], points=None) -> None:
    metrics = {"clean": clean, "perturbed": perturbed, "images": 60, "classes": 10}
    metrics |= {"neighbours": flat, "silhouette": [v / 100 for v in flat], "output_neighbours": outputs}
    metrics |= {"output_silhouette": [v / 200 for v in outputs], "evaluation_seconds": 1.0}
    metrics |= {"base_training": None, "generator_training": None}
    points = np.random.RandomState(0).randn(4, 60, 2) if points is None else points
    arrays = {"points": points.astype(np.float32), "labels": LABELS, "outputs": np.zeros((4, 60, 10), np.float32)}
    Store("paper").write(cell, metrics, ORIGIN | {"command": "nflib", "date": "2026-01-01"}, arrays)


def store_alone(cell: Cell = ALONE) -> None:
    store(cell, 90.0, [40.0, 50.0, 60.0], [95, 80, 85, 75], [96, 70, 75, 80])


def store_with(cell: Cell = WITH, outputs=(94, 90, 91, 92)) -> None:
    store(cell, 88.0, [70.0, 80.0, 90.0], list(outputs), [95, 85, 90, 86])


@pytest.fixture
def two(workshop):
    store_alone()
    store_with()
    return tables.stored("paper", kind="tsne")


def test_known_records_give_a_known_frame(two):
    rows = tsne.frame(two).set_index(["generator", "place"])
    assert list(rows.index) == [(g, place) for g in ("none", "ConvL") for place in ("embedding", "outputs")]
    row = rows.loc[("ConvL", "outputs")]
    assert (row["CA"], row["PA"], row["CA_NF"], row["PA_NF"], row["RP"], row["RP_error"]) == (90, 50, 88, 80, 30, 0)
    assert (row["neighbours_clean"], row["neighbours_perturbed"]) == (94, 91)
    assert row["neighbours_std"] == pytest.approx(np.std([90, 91, 92]))
    assert row["neighbours_gain"] == pytest.approx(np.mean([10, 6, 17]))
    assert row["neighbours_gain_error"] == pytest.approx(np.std([10, 6, 17], ddof=1) / np.sqrt(3))
    assert row["silhouette_gain"] == pytest.approx(11 / 200) and row["silhouette_clean"] == pytest.approx(0.47)
    assert (row["accuracy_worst"], row["neighbours_worst"]) == (70, 90)
    assert (row["published_PA"], row["published_PA_NF"]) == (38.9, 87.8)
    assert rows.loc[("ConvL", "embedding"), "neighbours_gain"] == pytest.approx(np.mean([15, 15, 6]))
    alone = rows.loc[("none", "embedding")]
    assert (alone["PA"], alone["neighbours_perturbed"], alone["published_PA"]) == (50, 75, 38.9)
    assert alone[["PA_NF", "RP", "neighbours_gain", "published_PA_NF"]].isna().all()


def test_the_order_of_records_does_not_matter(two):
    assert tables.to_csv(tsne.frame(two)) == tables.to_csv(tsne.frame(two[::-1]))
    assert tsne.pictures(two, "paper").data == tsne.pictures(two[::-1], "paper").data


@pytest.mark.parametrize("change", [{"first_seed": 1}, {"images": 50}, {"rate": 0.005}, {"law": "bit_flips"}])
def test_without_the_same_base_model_on_the_same_patterns_there_is_no_gain(workshop, change):
    store_alone(dataclasses.replace(ALONE, **change))
    path = Store("paper").path(dataclasses.replace(ALONE, **change))
    store_with()
    records = tables.stored("paper", kind="tsne")
    for record in records:  # the number of images is measured, not taken from the cell
        record["metrics"]["images"] = record["cell"]["images"]
    rows = tsne.frame(records)
    behind = rows[rows["generator"] == "ConvL"]
    assert path.exists() and behind[["CA", "PA", "RP", "neighbours_gain", "silhouette_gain"]].isna().all(axis=None)
    assert (behind["PA_NF"] == 80).all()
    text = tsne.summary(rows, "paper").data
    assert "not compared, the base model alone is missing" in text and "nan" not in text + tsne.meaning(rows).data


def test_printed_numbers_stand_beside_the_official_setting_only(workshop):
    modern = dataclasses.replace(BASE, recipe=BaseRecipe("modern"))
    for change in ({"base": modern}, {"law": "bit_flips"}, {"generator": None}):
        store_alone(dataclasses.replace(ALONE, **change))
    rows = tsne.frame(tables.stored("paper", kind="tsne"))
    official = (rows["base_recipe"] == "release") & (rows["error_model"] == "ReleaseMap")
    assert (rows["published_PA"].notna() == official).all() and official.sum() == 2


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ((94, 90, 90, 85), "+8.3 ± 1.7 points, more than without"),  # gains 10, 5, 10
        ((94, 82, 79, 78), "−0.3 ± 2.8 points, no sure difference"),  # gains 2, -6, 3
        ((94, 60, 64, 56), "−20.0 ± 0.6 points, less than without"),  # gains -20, -21, -19
    ],
)
def test_a_difference_is_called_one_when_its_confidence_interval_leaves_zero_out(workshop, outputs, words):
    store_alone()
    store_with(outputs=outputs)
    rows = tsne.frame(tables.stored("paper", kind="tsne"))
    assert f"neighbour accuracy in the outputs: {words}" in tsne.summary(rows, "paper").data
    agree = abs(87 - np.mean(outputs[1:])) <= 5
    assert f"Picture and outputs {'agree' if agree else 'do not agree'}" in tsne.summary(rows, "paper").data
    counted = [int(word in words) for word in ("more", "less")]
    assert "Of 1 generator measured" in tsne.meaning(rows).data
    for number, (one, many) in zip(counted, (("brings", "bring"), ("lowers", "lower"))):
        assert f"{number} surely {one if number == 1 else many}" in tsne.meaning(rows).data


def test_sentences_say_what_is_there(two):
    rows = tsne.frame(two)
    text = tsne.summary(rows, "paper").data
    assert "60 test images of 10 classes" in text and "Accuracy PA(NF) is 80.0 %" in text
    assert "The paper's accuracy for this setting is 87.8 %" in text and "Picture and outputs agree" in text
    assert "by at most 5.0 points" in text and "without numbers" in text  # means 75 - 80 and 87 - 91
    assert "In 2 of 2 networks" in tsne.meaning(rows).data
    assert "accuracy of 40.0 % and a neighbour accuracy of 80.0 %" in tsne.meaning(rows).data
    shown = tsne.table(rows).data
    assert "paper PA(NF)" in shown and "–" in shown


def test_it_is_said_that_generators_learnt_by_imitation(two):
    rows = tsne.frame(two)
    assert "trained by the paper's algorithm" not in tsne.summary(rows, "paper").data
    taught = rows.assign(steps=0.0, imitation_steps=600.0)
    assert "No generator here was trained by the paper's algorithm" in tsne.summary(taught, "paper").data


def test_nothing_measured_is_said(workshop):
    rows = tsne.frame([])
    assert rows.empty and list(rows.columns) == tsne.COLUMNS
    text = tsne.summary(rows, "paper").data
    assert "`nflib sweep tsne --profile paper` measures it" in text
    assert "surely" not in tsne.meaning(rows).data and "(0 rows)" in tsne.table(rows).data
    assert "Nothing measured yet" in tsne.pictures([], "paper").data


def test_a_picture_has_two_panels_a_network_and_says_so(two):
    arrays = [Store("paper").arrays(record) for record in two]
    networks = sorted(zip(two, arrays), key=lambda pair: pair[0]["cell"]["generator"] is not None)
    picture = tsne.picture(networks)
    assert picture.text.count("<image") == 0 and len(picture.text) < 300_000
    for said in ("no generator, clean: accuracy 90 %", "no generator, perturbed: accuracy 40 %, neighbours 70 %", "ConvL, perturbed: accuracy 70 %"):
        assert said in picture.alt
    assert picture.text == tsne.picture(networks).text


def test_many_points_are_drawn_as_pixels(two):
    record = two[0]
    arrays = {"points": np.random.RandomState(0).randn(4, 3000, 2), "labels": np.arange(3000) % 100}
    picture = tsne.picture([(record, arrays)])
    assert "<image" in picture.text and len(picture.text) < 300_000


def test_equal_points_can_be_drawn(workshop):
    store(ALONE, 90.0, [10.0] * 3, [10] * 4, [10] * 4, points=np.zeros((4, 60, 2)))
    assert "img" in tsne.pictures(tables.stored("paper", kind="tsne"), "paper").data


@pytest.mark.parametrize(
    ("given", "generators"),
    [
        ({"generator_names": "conv_s", "patterns": "2", "images": "100"}, ["ConvS"]),
        ({"generator_names": "[]", "error_model": "bit_flips", "rate": "0.02", "patterns": "1", "images": "80"}, []),
    ],
)
def test_the_notebook_runs_without_records(trained_workshop, tmp_path, given, generators):
    output = notebooks.execute("tsne", tmp_path / "out.ipynb", given)
    records = [json.loads(path.read_text()) for path in (results() / "records" / "smoke" / "tsne").glob("*.json")]
    assert len(records) == 1 + len(generators)
    shown = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)
    law = {"bit_flips": "BitFlips at 2 %"}.get(given.get("error_model"), "ReleaseMap at 1 %")
    assert law in shown and f"{given['images']} test images of 10 classes" in shown
    rows = tsne.frame(tables.stored("smoke", kind="tsne"))
    assert [name for name in rows["generator"].unique() if name != "none"] == generators
    for row in rows[rows["place"] == "outputs"].itertuples():
        assert f"{row.neighbours_clean:.1f} % clean, {row.neighbours_perturbed:.1f} % perturbed" in shown
    assert shown.count("data:image/svg+xml") == 1 and "coloured by class" in shown
