"""The quantisation page: the frame by hand, what the slip changes, the narrowest width, and the notebook from nothing."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from nflib import grids, notebooks, profiles, tables
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.pages import quantization as page
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASE = Base("cifar10", "resnet18", BaseRecipe())
ALONE = Cell("accuracy", BASE, rate=0.005, patterns=2, bits=4)
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}


def store(cell: Cell, clean: float, perturbed: list[float]) -> Cell:
    metrics = {"clean": clean, "perturbed": perturbed, "changed_bits": [0.0025] * len(perturbed), "images": 100}
    Store("paper").write(cell, metrics, ORIGIN)
    return cell


def variant(cell: Cell, law: str = "release_map", generator: str = "", **changes) -> Cell:
    recipe = GeneratorRecipe(generator) if generator else None
    return dataclasses.replace(cell, law=law, generator=recipe, **changes)


@pytest.fixture
def four(workshop):
    """Two's complement and the slip at 4 bits: alone, and with ConvL."""
    store(ALONE, 90.0, [30.0, 50.0])
    store(variant(ALONE, generator="conv_l"), 88.0, [60.0, 70.0])
    store(variant(ALONE, "release_map_sign_slip"), 90.0, [26.0, 44.0])
    store(variant(ALONE, "release_map_sign_slip", "conv_l"), 88.0, [61.0, 73.0])
    return tables.stored("paper")


def test_known_records_give_a_known_frame(four):
    rows = page.frame(four).set_index(["error_model", "generator"])
    assert list(rows["bits"]) == [4] * 4 and (rows["base_model"] == "ResNet18").all()
    true, slip = rows.loc[(page.TRUE, "ConvL")], rows.loc[(page.SLIP, "ConvL")]
    assert (true["PA"], true["PA_NF"], true["RP"]) == (40, 65, 25) and np.isnan(true["slip_RP"])
    assert (slip["PA"], slip["PA_NF"], slip["RP"], slip["slip_PA"], slip["slip_RP"]) == (35, 67, 32, -5, 7)
    assert (slip["slip_PA_error"], slip["slip_RP_error"]) == (pytest.approx(1), pytest.approx(2))  # of -4, -6; of 5, 9
    assert rows.loc[(page.SLIP, "none"), "slip_PA"] == -5 and np.isnan(rows.loc[(page.SLIP, "none"), "slip_RP"])
    for row in (true, slip):  # Table 22, four bits
        assert [row[f"published_{m}"] for m in tables.METRICS] == [91.8, 26.3, 89.8, 58.7, 32.4]
        assert row["RP_difference"] == pytest.approx(row["RP"] - 32.4)


def test_the_same_records_in_another_order_give_the_same_bytes(four):
    assert tables.to_csv(page.frame(four[::-1], "cifar10")) == tables.to_csv(page.frame(four, "cifar10"))


def test_what_is_missing_shows_as_missing(workshop):
    store(variant(ALONE, "release_map_sign_slip", "conv_l"), 88.0, [61.0, 73.0])
    store(ALONE, 90.0, [30.0, 50.0])
    rows = page.frame(tables.stored("paper")).set_index("generator")
    assert rows.loc["ConvL", "PA_NF"] == 67
    assert rows.loc["ConvL", ["PA", "RP", "slip_PA", "slip_RP"]].isna().all()
    assert "–" in page.table(rows.reset_index()).data and " nan" not in page.summary(rows.reset_index(), "paper").data


def test_only_the_release_recipe_under_the_map_stands_beside_the_paper(workshop):
    modern = dataclasses.replace(BASE, recipe=BaseRecipe("modern"))
    store(variant(ALONE, "bit_flips"), 90.0, [30.0, 50.0])
    store(variant(ALONE, base=modern), 90.0, [30.0, 50.0])
    rows = page.frame(tables.stored("paper"))
    assert len(rows) == 2 and rows[[*page.PUBLISHED, *page.DIFFERENCES]].isna().all(axis=None)


def test_the_paper_s_settings_have_rows_where_ours_are_missing_and_only_there(four):
    rows, empty = page.frame(four, "cifar10"), page.frame([], "cifar10")
    assert set(empty["base_model"]) == {"ResNet18", "VGG19"} and empty["record"].isna().all()
    assert empty[["CA", "PA", "PA_NF", "RP"]].isna().all(axis=None) and empty["published_PA"].notna().all()
    assert len(rows) == len(empty) + 2  # two's complement below 8 bits has no row of its own without ours
    one = rows[(rows["bits"] == 4) & (rows["base_model"] == "ResNet18") & (rows["generator"] == "none")]
    assert one["record"].notna().all()
    assert page.frame([]).empty and page.frame([], "digits").empty
    for nothing in (page.frame([]), empty):
        assert page.summary(nothing, "paper").data.startswith("**Not measured yet at full size:** `nflib sweep quantization --profile paper`")
        page.pictures(nothing), page.table(nothing)


def test_the_narrowest_width_that_works_has_no_gap_above_it():
    values = pd.Series({8: 90.0, 7: 89.0, 6: 85.0, 5: 80.0, 4: 88.0})
    assert page.narrowest(values, 90.0) == 6
    assert page.narrowest(values, 96.0) is None and page.narrowest(values[:0], 90.0) is None
    assert page.narrowest(values, 80.0) == 4 and page.narrowest(values, np.nan) is None


def test_at_8_bits_the_slip_s_curve_is_the_map_s_and_the_sentences_say_where_it_stops(four):
    store(dataclasses.replace(ALONE, bits=0), 91.0, [87.0, 89.0])
    rows = page.frame(tables.stored("paper"))
    line = page._lines(rows, page.SLIP)["none"]
    assert list(line.index) == [8, 4] and list(line["PA"]) == [88, 35]
    text = page.summary(rows, "paper").data
    assert "Without errors: it works for the base model alone down to 4 bits (clean at 8 bits: 91.0 %)" in text
    assert "ReleaseMap, sign slip: it works for the base model alone down to 8 bits" in text
    assert "The slip changes PA without a generator by −5.0 ± 1.0 at 4 bits; beyond two standard errors at 4 bits" in text
    assert "Of all 2 changes by the slip, 2 are beyond two standard errors" in text  # -5 ± 1 and +7 ± 2
    assert "read back as the official code does it, minus the paper's is, in points on average: +8.3 at 4 bits." in text  # 67.0 and 58.7
    assert "by 13.7 points with true two's complement and 8.7 points with the slip; nearer is ReleaseMap, sign" in text


def test_pictures_say_what_they_show(four):
    rows = page.frame(four)
    ((title, some),) = page._groups(rows)
    assert "generators trained at 1 %" in title
    assert f"{page.SLIP}, ConvL: 67 % at 4 bits" in page.curves(some, title).alt
    assert "RP with ConvL at 4 bits +7.0" in page.slip_changes(some, title).alt
    assert page.pictures(rows).data.count("<img") == page.pictures(rows, page.slip_changes).data.count("<img") == 1


@pytest.mark.parametrize(
    "given",
    [
        {"generator_names": "conv_s", "widths": "8,4", "patterns": "2", "error_models": "release_map,release_map_sign_slip"},
        {"generator_names": "[]", "widths": "5,3", "patterns": "2", "error_models": "bit_flips", "rate": "0.02"},
    ],
)
def test_the_notebook_runs_without_records(given, trained_workshop, tmp_path):
    output = notebooks.execute("quantization", tmp_path / "out.ipynb", {"base_models": "vgg11", **given})
    cells = [json.loads(path.read_text())["cell"] for path in (results() / "records" / "smoke" / "accuracy").glob("*.json")]
    widths = {int(width) for width in given["widths"].split(",")}
    assert {cell.get("bits") or 8 for cell in cells} == widths
    assert {cell["rate"] for cell in cells} == {float(given.get("rate", 0.005))}
    slipped = [cell["bits"] for cell in cells if cell["law"] == "release_map_sign_slip"]
    assert slipped == ([4, 4] if "sign_slip" in given["error_models"] else [])
    shown = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)
    assert ("The slip changes RP with ConvS by" in shown) == bool(slipped)
    assert "92.2 ± 5.7" in shown and shown.count("data:image/svg+xml") == 1 + bool(slipped)


def test_the_notebook_s_defaults_are_in_the_smoke_grid():
    given = notebooks.parameters("quantization")
    names = [name for name in given if name not in ("device", "measure")]
    assert set(grids.quantization(**{name: given[name] for name in names})) <= set(profiles.cells("smoke", "quantization"))
