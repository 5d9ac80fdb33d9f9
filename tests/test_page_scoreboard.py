"""The scoreboard: measured and closed-form numbers find their printed counterparts; contradictions are computed."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from test_page_overhead import record as latency

from nflib import grids, notebooks, profiles, published, tables
from nflib.cells import Base, Cell, cell_of, plain
from nflib.eopm import GeneratorRecipe
from nflib.pages import contradictions, scoreboard
from nflib.store import Store
from nflib.training import BaseRecipe

BASE = Base("cifar10", "vgg11", BaseRecipe("release", 30))
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip", "threads": 1, "precision": "fp32", "torch": "2", "date": "2026-01-01"}


def accuracy(cell: Cell, clean: float, perturbed: list[float]) -> dict:
    metrics = {"clean": clean, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    metrics |= {"base_training": None, "generator_training": None, "evaluation_seconds": 1.0}
    return {"cell": plain(cell), "metrics": metrics, "provenance": ORIGIN}


def pair(base: Base, generator: GeneratorRecipe, clean: float, low: float, high: float, **setting) -> list[dict]:
    alone, both = Cell("accuracy", base, patterns=2, **setting), Cell("accuracy", base, generator, patterns=2, **setting)
    return [accuracy(alone, clean, [low - 1, low + 1]), accuracy(both, clean, [high - 2, high + 2])]


CONV = GeneratorRecipe("conv_l", steps=4000)
RECORDS = [
    *pair(BASE, CONV, 88.0, 40.0, 80.0),
    *pair(BASE, GeneratorRecipe("conv_l", steps=100), 87.0, 40.0, 50.0),  # trained for less: not the one that counts
    *pair(Base("cifar10", "vgg11", BaseRecipe("modern", 20)), CONV, 91.0, 60.0, 85.0),  # the official code trains otherwise
    *pair(BASE, GeneratorRecipe("conv_l", steps=4000, law="bit_flips"), 88.0, 60.0, 85.0, law="bit_flips"),  # nor so
    *pair(Base("cifar10", "vgg11", BaseRecipe("release", 30), 0.5), CONV, 50.0, 20.0, 30.0),  # half as wide
    latency("cifar10", "resnet18", "deconv_s", 1, {"eager": (10.0, 1.0, 12.0)}),
]
RECORDS = list({json.dumps(r["cell"]): r for r in RECORDS}.values())  # one record a cell


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return scoreboard.frame(RECORDS)


def test_known_records_find_their_printed_numbers(rows):
    here = rows[(rows["table"] == "Table 12") & (rows["generator"] == "ConvL")].set_index("metric")
    assert here.loc["PA_NF", ["published", "published_std", "ours", "difference"]].tolist() == [87.2, 2.9, 80.0, -7.2]
    assert here.loc["PA_NF", "spreads"] == pytest.approx(-7.2 / 2.9) and here.loc["PA_NF", "verdict"] == "beyond 2 spreads"
    gain = np.array([38 - 39, 42 - 41]) + 40.0  # 78 - 39 and 82 - 41
    assert here.loc["RP", "ours"] == gain.mean() and here.loc["RP", "spreads"] == pytest.approx(-5.1 / gain.std(ddof=1))
    assert here.loc["CA_NF", "trained"] == "30 epochs, 4,000 steps of Eq. 3" and here.loc["CA_NF", "verdict"] == "no spread"
    alone = rows[(rows["metric"] == "PA") & (rows["kind"] == "accuracy")]
    assert set(alone["ours"]) == {40.0} and (alone["verdict"] == "within 1 spread").all()  # 42.2 ± 11.6, printed in five tables
    assert set(alone["table"]) == {"Table 1", "Table 11", "Table 12", "Table 16", "Table 21"}


def test_latencies_and_closed_forms(rows):
    slow = rows[rows["kind"] == "latency"].set_index(["table", "metric", "generator"])
    assert slow.loc[("Table 9", "latency_ms", "none"), "ours"] == 10 and slow.loc[("Table 9", "latency_ms", "DeConvS"), "ours"] == 12
    assert slow.loc[("Table 9", "extra_latency_ms", "DeConvS"), "difference"] == pytest.approx(2 - 1.65)
    assert slow.loc[("ICLR 2024 rebuttal text", "latency_overhead_percent", "DeConvS"), ["published", "ours"]].tolist() == [28, 20]
    closed = rows[rows["kind"] == "closed form"]
    assert len(closed) == 229 and (closed["verdict"] == "differs").sum() == 2
    counts = scoreboard.by_table(rows).set_index("table")
    assert counts.loc["Table 7", ["printed", "ours", "as printed"]].tolist() == [38, 38, 38]
    assert counts["printed"].sum() == 2738 and counts["ours"].sum() == len(rows)
    assert counts.loc["Table 13"].drop("printed").isna().all()


def test_a_number_counts_once_and_the_tables_are_in_order(rows):
    assert rows["published_row"].is_unique and rows["table"].drop_duplicates().tolist()[:3] == ["Table 1", "Table 2", "Table 3"]
    known = published.load().loc[rows["published_row"]]
    assert (known["mean"].to_numpy() == rows["published"].to_numpy()).all()


def test_the_same_records_in_another_order_give_the_same_bytes(rows):
    assert tables.to_csv(scoreboard.frame(RECORDS[::-1])) == tables.to_csv(rows)


def test_below_eight_bits_only_the_sign_slip_counts():
    recipe = GeneratorRecipe("conv_l", rate=0.01, steps=4000)
    base = Base("cifar10", "vgg19", BaseRecipe("release", 30))
    plain_law = pair(base, recipe, 80.0, 30.0, 60.0, rate=0.005, bits=4)
    slip = pair(base, recipe, 80.0, 35.0, 65.0, rate=0.005, bits=4, law="release_map_sign_slip")
    found = scoreboard.frame([*plain_law, *slip])
    found = found[(found["table"] == "Table 22") & (found["metric"] == "PA_NF")]
    assert found["ours"].tolist() == [65.0] and found["variant"].tolist() == ["trained on VGG19 at 1 %, 4 bits"]
    assert scoreboard.frame(plain_law)["kind"].eq("accuracy").sum() == 0


def test_sentences_pictures_and_without_records(rows):
    text = scoreboard.summary(rows, "paper").data
    assert f"{len(rows)} of 2,738 printed numbers" in text and "227 of 229 come out as printed" in text
    assert "Table 2 VGG19/ConvS, 29.7 printed, 29.3 computed" in text and "PA(NF) −7.2" in text and "30 epochs, 4,000 steps of Eq. 3" in text
    assert "5 of the" in text and "Caution" not in text  # clean accuracy is 0.4 points lower
    empty = scoreboard.frame([])
    assert "not measured yet: `nflib sweep --profile smoke`" in scoreboard.summary(empty, "smoke").data
    assert "Nothing can be said" in scoreboard.meaning(empty).data and "lie within two spreads" in scoreboard.meaning(rows).data
    measured = rows["kind"] == "accuracy"
    gaps = rows[measured & (rows["metric"] == "PA_NF")].drop_duplicates(["record", "published"])["difference"]
    assert f"PA(NF) {gaps.median():+.1f} points ({(gaps > 0).sum()} above, {(gaps < 0).sum()} below)".replace("-", "−") in scoreboard.meaning(rows).data
    assert "imitation" not in scoreboard.meaning(rows).data
    taught = rows.assign(trained=rows["trained"].str.replace("4,000 steps of Eq. 3", "6,000 steps of imitation"))
    count = rows[measured & rows["metric"].isin(["PA_NF", "CA_NF", "RP"])].drop_duplicates(["record", "metric", "published"])["trained"].str.contains("4,000 steps").sum()
    assert count and f"for {count} of " in scoreboard.meaning(taught).data and "another (imitation, not Eq. 3)" in scoreboard.meaning(taught).data
    for some in (rows, empty):
        assert "ES (%): 36" in scoreboard.agreement_picture(some).alt and "spread" in scoreboard.spread_picture(some).alt


def test_the_table_needs_no_network_and_shows_dashes(rows):
    page = scoreboard.interactive(rows).data
    assert len(page) < 2e6 and page.count("dt_bundle") == 0 and "unpkg.com" not in page
    assert '\\"NaN\\", ' not in page and '[\\"–\\", \\"___NaN___\\"]' in page
    assert scoreboard.interactive(rows).data == page
    assert 'id="scoreboard"' not in page  # the page's title has that id


@pytest.mark.parametrize(
    ("mean", "ceiling", "values"),
    [(81.0, 90.0, [90.0] * 9 + [0.0]), (45.0, 90.0, [0.0, 90.0] * 5), (89.6, 90.5, [90.5] * 9 + [81.5]), (95.0, 90.0, [95.0] * 10)],
)
def test_the_largest_spread_is_reached_by_an_example(mean, ceiling, values):
    assert np.mean(values) == pytest.approx(mean) and contradictions.largest_spread(mean, ceiling) == pytest.approx(np.std(values))


def test_no_accuracies_spread_more_than_the_largest_spread():
    chance = np.random.default_rng(0)
    for ceiling in (100.0, 60.0):
        values = ceiling * chance.beta(0.3, 0.2, (200, 10))
        assert all(v.std() <= contradictions.largest_spread(v.mean(), ceiling) + 1e-9 for v in values)


def test_contradictions_are_found():
    found = contradictions.frame()
    said = [" | ".join(row) for row in found.itertuples(index=False)]

    def one(*words: str) -> str:
        (line,) = [line for line in said if all(word in line for word in words)]
        return line

    assert "PA 6.6 from 6 of 6 RPs" in one("Table 15, VGG16, 1 %", "PA 7")
    assert "RP 21.6" in one("Table 12, VGG16 with DeConvL") and "29.3" in one("Table 2, VGG19 with ConvS")
    assert "85.8" in one("Table 3, VGG11 with UNetL") and "86.3" in one("Figure 12, ResNet18 with UNetL")
    assert "suspect" in one("Table 15, VGG11 with ConvS", "41.8")
    assert "impossible" in one("Table 16", "89.6 ± 8.7") and "impossible" in one("Table 19", "33.2 ± 48")
    assert "7, 6, 5, 4 and 3 bits" in one("92.2 ± 5.7 at") and "37.1, 1.8" in one("92.2 ± 5.7 at")
    assert "63.5 points" in one("up to 63.5") and "RP 57.3 saves 17.1 %" in one("saving up to 24 %")
    assert "6.8 and 6.8" in one("Table 13, VGG16 and VGG19") and "6 of 6 labels" in one("Figure 1b")
    assert "texts differ" in one("AWP") and not found.isna().any().any()
    some = contradictions.about(found, "Table 2", "Figure 13")
    assert some["where"].tolist() == ["Table 2, VGG19 with ConvS", "Figure 13 and Table 23"]  # not Tables 20 to 26
    assert f"{len(found)} suspicions checked" in contradictions.summary(found).data and "wrap" in contradictions.table(found).data


def test_hours_of_training_stand_beside_section_4_1(workshop):
    base, recipe = grids.base("paper", "gtsrb", "vgg11", "release"), grids.generator_recipe("paper", "conv_s", "release_map", 0.01)
    for cell, seconds in ((Cell("accuracy", base, recipe), 3600.0), (Cell("accuracy", base, dataclasses.replace(recipe, name="unet_l")), 7200.0)):
        record = accuracy(cell, 90.0, [50.0] * cell.patterns)
        Store("paper").write(cell, record["metrics"] | {"generator_training": {"seconds": seconds, "teacher": {"seconds": 1800.0}}}, ORIGIN | {"device": "a chip"})
    rows = scoreboard.frame(tables.stored("paper"))
    row = rows[rows["metric"] == "avg_generator_training_hours"].iloc[0]
    assert (row["published"], row["ours"], row["trained"], row["verdict"]) == (5.0, 2.0, "a chip", "other training")
    assert row["base_model"] == "VGG11" and "1 training times" in scoreboard.summary(rows, "paper").data


def test_status_counts_a_table_of_the_paper(workshop):
    whole = grids.base("paper", "gtsrb", "vgg11", "release")
    cell = next(c for c in profiles.cells("paper", "accuracy") if c.base == whole)
    metrics = accuracy(cell, 90.0, [50.0] * cell.patterns)["metrics"]
    Store("paper").write(cell, metrics, ORIGIN)
    rows = scoreboard.status_by_paper_table("cpu").set_index("place")
    assert [f"Table {n}" for n in range(1, 27)] == list(rows.index[:26])
    assert [f"Figure {n}" for n in range(1, 18)] == list(rows.index[26:])
    assert rows.loc["Table 13", ["done", "missing"]].tolist() == [1, 69] and rows.loc["Table 12", "done"] == 0
    assert rows.loc["Table 2", "time left"] == "computed" and rows.loc["Table 1", "missing"] == 50
    assert list(rows.loc[["Table 2", "Table 13", "Figure 2"], "numbers"]) == ["30 of 30", "2 of 195", "-"]
    assert rows.loc["Table 10", "missing"] == 12 and rows.loc["Table 9", "missing"] == 24
    assert set(rows["notebook"]) <= {*profiles.TABLES, "energy"}


@pytest.mark.parametrize("profile", ["paper", "smoke"])
def test_the_notebook_runs(profile, workshop, tmp_path):
    if profile == "smoke":
        for record in RECORDS[:2]:
            Store("smoke").write(cell_of(record["cell"]), record["metrics"], record["provenance"])
    output = notebooks.execute("scoreboard", tmp_path / "out.ipynb", {"profile": profile})
    shown = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)
    assert "of 2,738 printed numbers" in shown and "copy slip" in shown and "29.3 computed" in shown
    assert ("30 epochs, 4,000 steps of Eq. 3" in shown) == (profile == "smoke") and output.stat().st_size < 3e6

