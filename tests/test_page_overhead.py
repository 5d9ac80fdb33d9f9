"""The overhead page: known records give a known frame, in any order; Table 7 comes out; the notebook runs from nothing."""

import json

import numpy as np
import pytest

from nflib import grids, notebooks, profiles, show, tables
from nflib.cells import plain
from nflib.pages import overhead
from nflib.store import results


def record(dataset: str, model: str, generator: str, batch: int, times: dict, on: str = "cpu", device: str = "a chip") -> dict:
    """A record with {mode: (base, generator, both)} in milliseconds, and a spread of a tenth of each."""
    (cell,) = grids.overhead("paper", (dataset,), (model,), (generator,), (batch,), on)
    rows = [
        {"network": network, "mode": mode, "median_ms": ms, "spread_ms": ms / 10, "calls": 10}
        for mode, triple in times.items()
        for network, ms in zip(overhead.NETWORKS, triple)
    ]
    metrics = {"rows": rows, "without": {}, "batch": batch, "image_size": 224 if "imagen" in dataset else 32}
    return {"cell": plain(cell), "metrics": metrics, "provenance": {"device": device, "threads": 2, "precision": "fp32"}}


RECORDS = [
    record("cifar10", "resnet18", "unet_s", 1, {"eager": (10.0, 4.0, 15.0), "compiled": (5.0, 2.0, 6.0)}),
    record("cifar10", "resnet18", "unet_l", 1, {"eager": (10.0, 8.0, 20.0), "compiled": (5.0, 4.0, 8.0)}),
    record("cifar10", "resnet18", "unet_s", 16, {"eager": (80.0, 8.0, 88.0)}),
    record("imagenette224", "vgg19", "deconv_s", 1, {"eager": (2.0, 1.0, 2.5)}, "cuda", "a GPU"),
]


def test_known_records_give_a_known_frame_beside_table_9():
    rows = overhead.frame(RECORDS)
    row = rows[(rows["device"] == "a chip, 2 threads") & (rows["generator"] == "UNetS") & (rows["mode"] == "eager")].iloc[0]
    assert (row["base_ms"], row["generator_ms"], row["both_ms"], row["extra_ms"], row["overhead_percent"]) == (10, 4, 15, 5, 50)
    assert row["overhead_spread"] == pytest.approx(100 * np.hypot(1.0, 1.5) / 10)
    assert (row["published_base_ms"], row["published_ms"], row["published_extra_ms"]) == (5.84, 10.63, 4.79)
    assert row["published_overhead_percent"] == pytest.approx(100 * 4.79 / 5.84)
    assert row["mac_percent"] == pytest.approx(100 * 9.191424 / 555.42272)
    compiled = rows[(rows["mode"] == "compiled") & rows["both_ms"].notna()]
    assert compiled["published_ms"].isna().all() and list(compiled["overhead_percent"]) == [60.0, 20.0]
    large = rows[rows["batch"] == 16]
    assert large["published_ms"].isna().all() and large["both_ms"].isna().tolist() == [False, True]  # no compiled rows
    assert rows.loc[rows["device"] == "a GPU", "published_extra_ms"].iloc[0] == 1.33
    printed = rows[rows["published_extra_ms"].notna()]
    assert len(printed) == 24 and printed["device"].isna().sum() == 21  # the other settings keep their place, unmeasured


def test_a_generators_own_time_is_held_against_the_usual_time_of_its_base_model():
    """Beside each generator the base model was timed anew, here 10, 10 and 16 ms: the usual is 10, and 60 % is no news."""
    slow = record("cifar10", "resnet18", "conv_s", 1, {"eager": (16.0, 1.0, 12.0)})
    rows = overhead.frame([*RECORDS, slow])
    first = rows[(rows["device"] == "a chip, 2 threads") & (rows["batch"] == 1) & (rows["mode"] == "eager")].set_index("generator")
    assert first["own_percent"].to_dict() == pytest.approx({"ConvS": 10.0, "UNetS": 40.0, "UNetL": 80.0})
    assert first.loc["ConvS", "overhead_percent"] == -25
    said = overhead._device_lines(rows[rows["device"] == "a chip, 2 threads"])
    assert any("a generator adds from 10.0 % (ResNet18 with ConvS, 32×32) to 80.0 % (ResNet18 with UNetL, 32×32)" in line for line in said)
    assert any("its own times are up to 60 % apart in one setting" in line for line in said)
    ranked = rows.assign(own_percent=rows["mac_percent"])  # time that follows arithmetic
    assert "a chip, 2 threads, eager: rank correlation 1.00 over 3 pairs" in overhead.meaning(ranked).data


def test_the_same_records_in_another_order_give_the_same_bytes():
    assert tables.to_csv(overhead.frame(RECORDS[::-1])) == tables.to_csv(overhead.frame(RECORDS))


def test_all_38_numbers_of_table_7_come_out():
    assert "Of Table 7's 38 numbers 38 come out as printed: 16 of 16" in overhead.size_summary().data
    rows = overhead.sizes().set_index(["network", "image_size"])
    assert rows.loc[("DeConvS", 32), "true_macs_million"] == pytest.approx(11.501568)
    assert (rows["true_macs_million"] < rows["macs_million"]).all()


def test_sentences_follow_from_the_numbers(workshop):
    text = overhead.summary(overhead.frame(RECORDS), "paper").data
    assert "from 9.3 % (VGG19 with DeConvS, 224×224) to 90.4 % (VGG19 with UNetS, 32×32)" in text
    assert "eager, batch 1: overhead from 50.0 % (ResNet18 with UNetS, 32×32) to 100.0 % (ResNet18 with UNetL, 32×32)" in text
    assert "eager, batch 1: UNetS takes 50 % of UNetL's extra time." in text
    assert "take 40 % of the eager time (median of 2 settings; 40 to 40 %)" in text
    assert "Batch: over 1 setting the median overhead is 50.0 % at a batch of 1 and 10.0 % at 16; it is smaller at 16 in 1." in text
    assert "0 of 96 cells" in text


def test_without_records_the_printed_numbers_stand_beside_dashes(workshop):
    rows = overhead.frame([])
    assert len(rows) == 24 and rows["both_ms"].isna().all()
    assert "Not measured yet: `nflib sweep overhead --profile smoke`" in overhead.summary(rows, "smoke").data
    assert "Nothing measured yet" in overhead.pictures(rows).data and "rank correlation" in overhead.meaning(rows).data
    shown = overhead.latency_tables(rows).data
    assert "Not measured here" in shown and "10.63" in shown and ">0.00<" not in shown


def test_the_picture_says_what_it_shows():
    rows = overhead.frame(RECORDS)
    picture = overhead.picture(rows[(rows["batch"] == 1) & (rows["image_size"] == 32) & rows["device"].notna()], "a title")
    assert "ResNet18 with UNetS, eager: 50 %" in picture.alt and picture.text.startswith("<?xml")
    assert overhead.pictures(rows).data.count("<img") == 2  # the chip at 32 pixels, the GPU at 224


@pytest.mark.parametrize(
    "given",
    [
        {"base_models": "vgg11", "generator_names": "deconv_s", "batches": "2"},
        {"base_models": "resnet18", "generator_names": "unet_s", "batches": "1", "datasets": "gtsrb"},
    ],
)
def test_the_notebook_runs_from_nothing(given, workshop, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/no/compiler")  # compiling takes a minute; without a compiler eager rows remain
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    output = notebooks.execute("overhead", tmp_path / "out.ipynb", given | {"device": "cpu"})
    (path,) = (results() / "records" / "smoke" / "overhead").glob("*.json")
    measured = json.loads(path.read_text())
    assert set(measured["metrics"]["without"]) == {"compiled"} and measured["metrics"]["batch"] == int(given["batches"])
    (row,) = overhead.frame([measured]).query("both_ms.notna()").to_dict("records")
    assert row["extra_ms"] == pytest.approx(row["both_ms"] - row["base_ms"]) and row["both_ms"] > row["generator_ms"] > 0
    shown = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)
    assert f"batch {given['batches']}: overhead {row['overhead_percent']:.1f} %" in shown
    assert "Compiling: not measured on this device." in shown and "38 come out as printed" in shown
    assert f"{row['both_ms']:.2f}" in shown and f"{show.count(len(profiles.cells('smoke', 'overhead')), 'cell')}" in shown
