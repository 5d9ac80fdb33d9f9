"""Page "error_models": a known frame and attribution, published numbers where they belong, laws of the layout, the notebook."""

import json

import numpy as np
import pytest

from nflib import faults, grids, notebooks, profiles, tables
from nflib.cells import plain
from nflib.pages import error_models as page
from nflib.store import Store, results

CELLS = grids.error_models("paper", "cifar10", ("vgg11",), ("release",), ("conv_l",), 0.01, 4)
ALONE = {  # accuracies of four chips without generator, by law and rate; clean accuracy is 90
    ("release_map", 0.01): [20.0, 40.0, 60.0, 40.0],
    ("release_map_tiling_corrected", 0.01): [68.0, 72.0, 70.0, 70.0],
    ("release_map_per_layer", 0.01): [74.0, 76.0, 75.0, 75.0],
    ("stuck_at", 0.01): [85.0, 85.0, 75.0, 75.0],
    ("bit_flips", 0.005): [78.0, 78.0, 76.0, 76.0],
    ("bit_flips", 0.01): [50.0, 60.0, 60.0, 50.0],
}


def record(cell) -> dict:
    values = np.resize(ALONE[cell.law, cell.rate], cell.patterns)
    gain = np.resize([2.0, 4.0, 6.0, 4.0], cell.patterns) if cell.law == "release_map" else 5.0
    gained = values + gain * (cell.generator is not None)
    share = 0.01 if cell.law == "bit_flips" and cell.rate == 0.01 else 0.005
    metrics = {"clean": 88.0 if cell.generator else 90.0, "perturbed": gained.tolist(), "changed_bits": [share] * cell.patterns, "images": 100}
    return {"cell": plain(cell), "metrics": metrics, "provenance": {"device": "a chip"}}


RECORDS = [record(cell) for cell in CELLS]


def row(rows, law, ber=1.0):
    return rows[(rows["error_model"] == faults.LABELS[law]) & (rows["ber_percent"] == ber)].iloc[0]


def test_known_records_give_a_known_frame():
    rows = page.frame(RECORDS)
    assert [*rows["error_model"]] == [*page.LAWS, "BitFlips"] and set(rows["generator"]) == {"ConvL"}
    stuck = row(rows, "stuck_at")
    assert (stuck["CA"], stuck["PA"], stuck["PA_std"], stuck["PA_worst"], stuck["yield_percent"]) == (90, 80, 5, 75, 50)
    assert (stuck["PA_NF"], stuck["PA_NF_worst"], stuck["yield_NF_percent"], stuck["RP"], stuck["RP_error"]) == (85, 80, 50, 5, 0)
    release = row(rows, "release_map")
    assert release["PA_q05"] == pytest.approx(23) and release["yield_percent"] == 0
    assert (release["RP"], release["RP_error"]) == (4, pytest.approx(np.std([2, 4, 6, 4], ddof=1) / 2))
    assert row(rows, "bit_flips")["changed_bits_percent"] == 1.0 and row(rows, "bit_flips", 0.5)["changed_bits_percent"] == 0.5
    assert set(rows["largest_layer"]) == {512 * 512 * 9}


def test_published_numbers_stand_beside_the_papers_own_setting_only():
    rows = page.frame(RECORDS)
    release = row(rows, "release_map")
    assert [release[name] for name in page.PUBLISHED] == [42.2, 87.2, 45.1, pytest.approx(40 - 42.2), pytest.approx(4 - 45.1)]
    assert rows[page.PUBLISHED].notna().any(axis=1).sum() == 1
    unmeasured = page.frame([], CELLS)
    assert unmeasured["published_PA"].tolist() == [42.2] and unmeasured[["CA", "PA", "PA_NF", "RP", "yield_percent"]].isna().all(axis=None)
    assert "Not measured yet" in page.summary(unmeasured, "paper").data and "42.2" in page.accuracy_table(unmeasured).data


def test_parts_of_the_damage_add_up_and_their_errors_are_unpaired():
    parts = page.attribution(page.frame(RECORDS)).set_index("step")
    assert parts["points"].tolist() == [50, 30, 5, 5, -3, 13, 22, 35]
    assert parts.loc["tiling slip", "error"] == pytest.approx(np.sqrt(np.var([20, 40, 60, 40], ddof=1) / 4 + np.var([68, 72, 70, 70], ddof=1) / 4))
    chain = parts[parts["kind"] == "part"].iloc[:4]
    assert chain["points"].sum() == parts["points"].iloc[0] - parts["points"].iloc[5]
    assert np.allclose(chain["start"] + chain["points"], parts["points"].iloc[0] - np.r_[0, chain["points"].cumsum()[:-1]])
    assert "stuck cells, not flips: -3.0" in page.waterfall(parts.reset_index(), "a title").alt


def test_sentences_follow_the_numbers_whichever_way_they_come_out():
    said = page.summary(page.frame(RECORDS), "paper").data
    assert "Most damage CA − PA: ReleaseMap at 1 %, 50.0 ± 8.2 points. Least: StuckAt at 1 %, 10.0 ± 2.9 points" in said
    assert "40.0 ± 8.7 points less damage. The layout of the map accounts for 80 ± 7 % of the release map's damage" in said
    assert "The other recipe is not measured" in said and "not a conclusion about CIFAR-10" not in said
    assert "Clear parts of the damage, in points: tiling slip +30.0 ± 8.2, one map for all layers +5.0 ± 0.9, twice" in said
    assert "Not clear: map reused within a layer +5.0 ± 2.9, stuck cells, not flips −3.0 ± 2.9." in said
    assert "* **ConvL brings back +4.0 ± 0.8 points** under ReleaseMap at 1 %; **" in said
    assert "* Not clearly different from that under the release map: " in said and "; StuckAt at 1 % (+1.0 ± 0.8)" in said
    other = {"release_map": "stuck_at", "stuck_at": "release_map"}
    turned = [{**one, "cell": {**one["cell"], "law": other.get(one["cell"]["law"], one["cell"]["law"])}} for one in RECORDS]
    for one in turned:
        if one["cell"]["generator"]:
            one["cell"]["generator"] = {**one["cell"]["generator"], "law": one["cell"]["law"]}
    said = page.summary(page.frame(turned), "paper").data
    assert "40.0 ± 8.7 points more damage" in said and "is not shown everywhere" in said


@pytest.mark.parametrize(("more", "word", "gap"), [(20.0, "less", "−19.0"), (-20.0, "more", "+21.0")])
def test_recovery_under_other_laws_is_said_beside_the_release_map_s(more, word, gap):
    turned = json.loads(json.dumps(RECORDS))
    for one in turned:
        if one["cell"]["law"] == "release_map" and one["cell"]["generator"]:
            one["metrics"]["perturbed"] = [value + more for value in one["metrics"]["perturbed"]]
    rows = page.frame(turned)
    said = page.summary(rows, "paper").data
    fixed = row(rows, "release_map_tiling_corrected")
    assert f"* **ConvL brings back {'+24.0' if more > 0 else '−16.0'} ± 0.8 points** under ReleaseMap at 1 %; **+{fixed['RP']:.1f} ± " in said
    assert f"* Clearly {word} than under the release map: ReleaseMap, tiling corrected at 1 % ({gap}" in said
    without = [one for one in RECORDS if one["cell"]["law"] != "release_map"]
    assert "* Recovery with ConvL, in points: " in page.summary(page.frame(without), "paper").data


def test_what_is_missing_is_a_dash():
    some = [one for one in RECORDS if one["cell"]["law"] != "stuck_at" and one["cell"]["generator"] is None]
    with_only = [one for one in RECORDS if one["cell"]["law"] == "stuck_at" and one["cell"]["generator"] is not None]
    rows = page.frame(some + with_only)
    stuck = row(rows, "stuck_at")
    assert stuck["PA_NF"] == 85 and stuck[["PA", "RP", "yield_percent", "yield_NF_percent"]].isna().all()
    assert row(rows, "release_map")["generator"] == "none" and np.isnan(row(rows, "release_map")["yield_NF_percent"])
    parts = page.attribution(rows).set_index("step")["points"]
    assert parts.isna().tolist() == [False, False, False, True, True, False, False, False]
    assert "map reused" not in page.waterfall(page.attribution(rows), "a title").alt
    said = page.summary(rows, "paper").data
    assert "Most damage CA − PA: ReleaseMap at 1 %" in said and "The layout of the map" not in said and "nan" not in said
    empty = page.frame([])
    assert empty.empty and list(empty) == page.COLUMNS and "Not measured yet" in page.summary(empty, "smoke").data
    assert "Nothing measured yet" in page.attribution_pictures(empty).data and "Nothing measured yet" in page.chip_pictures([]).data


def test_one_pattern_has_no_errors_to_show():
    cut = json.loads(json.dumps(RECORDS))
    for one in cut:
        one["cell"]["patterns"], one["metrics"]["perturbed"] = 1, one["metrics"]["perturbed"][:1]
    rows = page.frame(cut)
    said = page.summary(rows, "paper").data
    assert "± –" in said and "nan" not in said and "Clear parts" not in said
    assert "nan" not in page.waterfall(page.attribution(rows), "a title").alt


def test_the_same_records_in_another_order_give_the_same_bytes():
    there, back = page.frame(RECORDS), page.frame(RECORDS[::-1])
    assert tables.to_csv(there) == tables.to_csv(back)
    assert page.attribution_pictures(there).data == page.attribution_pictures(back).data
    assert page.recovery_pictures(there).data == page.recovery_pictures(back).data
    assert page.chip_pictures(RECORDS).data == page.chip_pictures(RECORDS[::-1]).data


def test_the_picture_of_recovery_says_it_under_every_law():
    shown = page.recovery_pictures(page.frame(RECORDS)).data
    assert "release, StuckAt 1 %, ConvL: +5.0 ± 0.0; release, BitFlips 0.5 %, ConvL:" in shown
    assert "release, ReleaseMap 1 %, ConvL: +4.0 ± 0.8;" in shown
    alone = page.frame([one for one in RECORDS if one["cell"]["generator"] is None])
    assert "Nothing measured yet" in page.recovery_pictures(alone).data


def test_the_picture_of_chips_says_median_and_worst():
    shown = page.chip_pictures(RECORDS).data
    assert "release, StuckAt 1 %, none: median 80.0, worst 75.0" in shown
    assert "release, BitFlips 0.5 %, ConvL: median 82.0, worst 81.0" in shown


def test_the_release_map_comes_in_combs_and_the_intended_layout_does_not():
    rows = page.layout(0.01, 12).set_index(["error_model", "ber_percent"])
    ratio, mean = rows["variance_to_mean"], rows["mean"]
    assert ratio["ReleaseMap", 1.0] > 5 and (ratio.drop(("ReleaseMap", 1.0)) < 1.5).all()
    independent = 576 * 0.01
    for law, ber, expected in (("BitFlips", 1.0, independent), ("BitFlips", 0.5, independent / 2), ("StuckAt", 1.0, independent / 2)):
        assert mean[law, ber] == pytest.approx(expected, abs=5 * np.sqrt(expected / (12 * 64)))
    assert rows["worst_filter"]["ReleaseMap", 1.0] > 1.7 * rows["worst_filter"]["StuckAt", 1.0]
    assert "ReleaseMap" in page.comb(0.01).alt and "StuckAt" in page.comb(0.01).alt
    assert page.layout(0.0, 1)["variance_to_mean"].isna().all()


def outputs(path) -> str:
    return json.dumps([cell.get("outputs") for cell in json.loads(path.read_text())["cells"]], ensure_ascii=False)


def test_the_notebook_runs_without_records_with_other_parameters(trained_workshop, tmp_path):
    given = {"base_recipes": "modern", "generator_names": "[]", "rate": "0.02", "patterns": "2"}
    shown = outputs(notebooks.execute("error_models", tmp_path / "out.ipynb", given))
    paths = (results() / "records" / "smoke" / "accuracy").glob("*.json")
    cells = [json.loads(path.read_text())["cell"] for path in paths]
    assert sorted((cell["law"], cell["rate"]) for cell in cells) == sorted((law, 2 * rate) for law, rate in ALONE)
    assert {cell["base"]["recipe"]["name"] for cell in cells} == {"modern"}
    for words in ("base recipe `modern`", "BitFlips at 2 %", "not a conclusion about CIFAR-10", "variance / mean", "yield %"):
        assert words in shown
    assert "brings back" not in shown and "so few patterns" in shown and "± nan" not in shown


def test_the_notebook_shows_stored_records_beside_the_papers_numbers_and_measures_nothing(workshop, tmp_path):
    cells = [cell for cell in profiles.cells("paper", "error_models") if cell.base.recipe.name == "release"][:12]
    for cell in cells:
        origin = {"commit": "0" * 40, "device": "a chip"}
        Store("paper").write(cell, record(cell)["metrics"], origin)
    given = {"profile": "paper", "dataset": "cifar10", "measure": "false", "rate": "0.005", "patterns": "3"}
    shown = outputs(notebooks.execute("error_models", tmp_path / "out.ipynb", given))
    assert len(list((results() / "records" / "paper" / "accuracy").glob("*.json"))) == 12
    assert "are measured; `nflib sweep error_models --profile paper` measures the others" in shown
    for words in ("ConvS brings back", "PA under ReleaseMap at 1 %: 42.2 % in the paper, 39.6 ± 14.1 %", "tiling slip +30.4"):
        assert words in shown
    assert ">38.9</td>" in shown  # the paper's ResNet18, beside dashes
