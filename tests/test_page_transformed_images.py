"""Page "transformed_images": known records give a known frame; the notebook runs from nothing with other parameters."""

import dataclasses
import json

import numpy as np
import pytest

from nflib import notebooks, tables
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.pages import transformed_images as page
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASE = Base("cifar10", "resnet18", BaseRecipe())
CELL = Cell("transformed_images", BASE, GeneratorRecipe("conv_l"), patterns=0)
OTHER = dataclasses.replace(CELL, generator=GeneratorRecipe("unet_s"))
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip", "threads": 1, "precision": "fp32", "torch": "2"}
METRICS = {
    "clean": 88.0, "clean_without": 90.0, "perturbation_alone": 12.0, "swapped_image": 70.0, "swapped_perturbation": 20.0,
    "nearest_mean": {"images": 30.0, "perturbations": 55.0, "transformed": 40.0},
    "between_classes": {"images": 8.0, "perturbations": 40.0, "transformed": 12.0},
    "common": 60.0, "mean_perturbation": 9.0, "mean_change": 8.0, "saturated": 5.0, "classes": 10, "largest_class": 10.0,
    "images": 10000, "evaluation_seconds": 1.0, "base_training": None, "generator_training": None,
}  # fmt: skip


def some_arrays(size: int = 32) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    images = {name: random.randint(0, 256, (20, 3, size, size), np.uint8) for name in ("images", "transformed")}
    change = random.randn(20, 3, size, size).astype(np.float16) / 20
    return {**images, "perturbations": change, "labels": np.arange(20, dtype=np.uint8) // 2, "class_means": change[::2]}


def store(cell: Cell, arrays: dict | None = None, **changes: object) -> None:
    command = f"nflib sweep --profile paper --only digest={cell.digest}"
    Store("paper").write(cell, METRICS | changes, ORIGIN | {"command": command, "date": "2026-01-01"}, arrays or some_arrays())


def stored() -> list[dict]:
    return tables.stored("paper", kind="transformed_images")


@pytest.fixture
def two(workshop):
    store(CELL)
    painter = {"swapped_image": 15.0, "swapped_perturbation": 80.0, "perturbation_alone": 75.0}
    store(OTHER, **painter, between_classes={"images": 8.0, "perturbations": 4.0, "transformed": 7.0})
    return stored()


def test_known_records_give_a_known_frame(two):
    rows = page.frame(two)
    assert list(rows["generator"]) == ["ConvL", "UNetS"]
    row = rows.iloc[0]
    assert (row["CA"], row["CA_NF"], row["published_CA"], row["published_CA_NF"]) == (90, 88, 92.6, 89.8)
    assert (row["chance"], row["perturbation_alone"], row["swapped_image"], row["swapped_perturbation"]) == (10, 12, 70, 20)
    assert [row[f"nearest_mean_{kind}"] for kind in page.KINDS] == [30, 55, 40]
    assert [row[f"between_classes_{kind}"] for kind in page.KINDS] == [8, 40, 12]
    assert (row["common"], row["mean_perturbation"], row["mean_change"], row["saturated"]) == (60, 9, 8, 5)


def test_the_order_of_records_does_not_matter(two):
    assert tables.to_csv(page.frame(two)) == tables.to_csv(page.frame(two[::-1]))
    assert page.galleries(two, "paper").data == page.galleries(two[::-1], "paper").data


def test_printed_numbers_stand_beside_the_official_setting_only(workshop):
    modern = dataclasses.replace(BASE, recipe=BaseRecipe("modern"))
    for change in ({"base": modern}, {"law": "bit_flips"}, {"generator": GeneratorRecipe("conv_l", loss_weight=3.0)}, {}):
        store(dataclasses.replace(CELL, **change))
    rows = page.frame(stored())
    official = (rows["base_recipe"] == "release") & (rows["error_model"] == "ReleaseMap")
    assert (rows["published_CA"].notna() == official).all() and official.sum() == 2
    assert rows["published_CA_NF"].notna().sum() == 1


def test_sentences_say_what_is_there(two):
    text = page.summary(page.frame(two), "paper").data
    assert text.count("\n* ") + text.startswith("* ") == 1  # one base model, one way of training: one line
    for said in (
        "generators UNetS and ConvL, trained by **Eq. 3 alone, the paper's algorithm** (58,800 steps of Eq. 3)",
        "tells the class of 12.0 to 75.0 % of the images (chance 10.0 %, commonest class 10.0 %): above chance.",
        "as the perturbation's class in 20.0 to 80.0 % and as its own in 15.0 to 70.0 %",
        "Clean accuracy 90.0 → 88.0 %; in the paper 92.6 → 84.4 to 89.8 %.",
        "of the paper show such images without numbers",
    ):
        assert said in text
    meaning = page.meaning(page.frame(two)).data
    assert "* Trained by Eq. 3 alone, the paper's algorithm: 1 of 2 generators does so; in 1 the class explains more" in meaning
    assert "60 to 60 %" in meaning and "So the paper's algorithm" not in meaning and "imitat" not in meaning


@pytest.mark.parametrize(("told", "verdict"), [(80.0, "leads there by itself: these generators classify"), (1.0, "does not lead there by itself")])
def test_the_verdict_on_the_algorithm_follows_the_swapped_images(workshop, told, verdict):
    store(CELL, swapped_perturbation=told, swapped_image=10.0)
    assert verdict in page.meaning(page.frame(stored())).data


def test_painting_is_no_finding_where_it_was_trained(workshop):
    """Generators that imitated class patterns stand apart from those that the paper's algorithm trained."""
    taught = GeneratorRecipe("conv_l", steps=0, imitation_steps=600, teacher=GeneratorRecipe("class_patterns"))
    store(CELL, swapped_perturbation=3.0, swapped_image=80.0)
    store(dataclasses.replace(CELL, generator=taught), swapped_perturbation=85.0, swapped_image=5.0)
    rows = page.frame(stored())
    lines = page.meaning(rows).data.splitlines()
    (imitation,) = [line for line in lines if line.startswith("* Trained by imitation of class patterns: 1 of 1 generator does so")]
    (alone,) = [line for line in lines if line.startswith("* Trained by Eq. 3 alone, the paper's algorithm: 0 of 1 generator does so")]
    assert "what they were trained for" in imitation and "what they were trained for" not in alone
    assert "after 58,800 steps at most, does not lead there by itself" in alone
    assert [key[-1] for key, _ in page._groups(rows)] == ["imitation of class patterns", page.ALONE_WAY]
    both = page._groups(rows.assign(steps=300.0))
    assert [key[-1] for key, _ in both] == ["imitation of class patterns, then Eq. 3", page.ALONE_WAY]


@pytest.mark.parametrize(("right", "images", "reads"), [(12.0, 10000, True), (10.4, 10000, False), (14.0, 100, False), (3.0, 100, False)])
def test_the_class_is_read_when_chance_does_not_explain_it(workshop, right, images, reads):
    store(CELL, perturbation_alone=right, images=images)
    assert f"commonest class 10.0 %): {'' if reads else 'not '}above chance." in page.summary(page.frame(stored()), "paper").data


def test_it_is_said_how_many_generators_beat_chance(two):
    rows = page.frame(two)
    rows["perturbation_alone"] = [9.0, 40.0]
    assert "above chance for 1 of 2." in page.summary(rows, "paper").data


def test_one_perturbation_for_all_images_is_called_so(workshop):
    same = {"images": 8.0, "perturbations": None, "transformed": 8.0}
    store(CELL, between_classes=same, swapped_image=None, swapped_perturbation=None, common=100.0)
    rows = page.frame(stored())
    text = page.summary(rows, "paper").data
    assert "is the same for every image" in text and "nan" not in text and "is told as" not in text
    assert "Nothing is measured that could tell" in page.meaning(rows).data
    assert "between classes, perturbations" not in page.table(rows).data


def test_nothing_measured_is_said(workshop):
    rows = page.frame([])
    assert rows.empty and list(rows.columns) == page.COLUMNS
    text = page.summary(rows, "paper").data
    assert "`nflib sweep transformed_images --profile paper` measures it" in text
    assert "Nothing is measured" in page.meaning(rows).data and "(0 rows)" in page.table(rows).data
    assert "Nothing measured yet" in page.galleries([], "paper").data


@pytest.mark.parametrize("size", [32, 224])
def test_a_gallery_is_one_small_picture_with_alternative_text(two, size):
    picture = page.gallery(two[0], some_arrays(size))
    assert picture.text.count("<image") == 1 and len(picture.text) < 400_000
    assert "Images of 10 classes" in picture.alt and "Mean size of the perturbation 9.0 %" in picture.alt


def test_a_gallery_shows_every_pixel_in_its_place():
    rows = [np.zeros((2, 3, 4, 4)), np.ones((2, 3, 4, 4))]
    rows[0][1], rows[1][0] = 0.5, np.nan
    whole = page._mosaic(rows)
    assert whole.shape == (12, 12, 3) and (whole[2:6, 2:6] == 0).all() and (whole[2:6, 8:12] == 0.5).all()
    assert (whole[:2] == 1).all() and (whole[:, 6:8] == 1).all() and (whole[6:] == 1).all()


def test_a_class_with_one_image_leaves_a_blank(two):
    arrays = {name: values[1:] if len(values) == 20 else values for name, values in some_arrays().items()}
    assert "<image" in page.gallery(two[0], arrays).text


def test_classes_have_their_names():
    assert [page.class_name("CIFAR-10", k) for k in (0, 9)] == ["airplane", "truck"]
    assert page.class_name("digits", 7) == page.class_name("GTSRB", 7) == "7"


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"generator_names": "unet_s"}, ["UNetS"]),
        ({"generator_names": "deconv_s", "error_model": "bit_flips", "rate": "0.02"}, ["DeConvS"]),
    ],
)
def test_the_notebook_runs_without_records(trained_workshop, tmp_path, given, names):
    output = notebooks.execute("transformed_images", tmp_path / "out.ipynb", given)
    assert len(list((results() / "records" / "smoke" / "transformed_images").glob("*.json"))) == len(names)
    rows = page.frame(tables.stored("smoke", kind="transformed_images"))
    assert list(rows["generator"]) == names and (rows["images"] == 360).all()
    assert (rows["ber_percent"] == 100 * float(given.get("rate", 0.01))).all()
    shown = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)
    for row in rows.itertuples():
        assert f"VGG11 + {row.generator}" in shown and f"{row.perturbation_alone:.1f} %" in shown
    assert shown.count("data:image/svg+xml") == len(names)


def test_the_first_gallery_of_a_group_is_open_and_the_others_unfold(two):
    """The generator that decides most often comes first."""
    html = page.galleries(two, "paper").data
    first, others = html.split("<details")
    assert first.count("data:image/svg+xml") == others.count("data:image/svg+xml") == 1
    assert "ResNet18 + UNetS" in first and "ResNet18 + ConvL" in others and "<summary>1 other generator: ConvL</summary>" in others
