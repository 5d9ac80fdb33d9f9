"""The tidy frame: one row a cell, statistics in one place, recovery paired, the paper's numbers beside the right rows."""

import dataclasses
import importlib

import matplotlib
import numpy as np
import pytest
from scipy import stats

from examples import BASE, METRICS
from nflib.report import figures, published, show
from nflib.report.frame import frame, measured, paired, rank_correlation, spearman
from nflib.report.show import ClaimFails, claim, to_csv
from nflib.study import base, generator
from nflib.study.cells import Cell

VGG11 = base("paper", "cifar10", "vgg11")
CONV_L = generator("paper", "conv_l", "distilled", "release_map", 0.01)
ALONE, BEHIND = Cell(VGG11, patterns=4), Cell(VGG11, CONV_L, patterns=4)


def record(accuracies: list[float], clean: float = 90.0, **metrics) -> dict:
    measured = METRICS | {"clean": clean, "perturbed": accuracies, "images": 1000, "changed_bits": [0.01, 0.02]} | metrics
    return {"cell": {}, "metrics": measured, "provenance": {"device": "a CPU"}, "profile": "paper"}


def framed(**accuracies_of):
    cells = {"alone": ALONE, "behind": BEHIND, "clipped": dataclasses.replace(ALONE, mitigation="cut_weights", kind="mitigation")}
    made = {}
    for name, values in accuracies_of.items():
        made[cells[name].digest] = {**record(values), "cell": {"base": name}}
    return frame([cells[name] for name in accuracies_of], made)


def test_statistics_of_a_row():
    row = framed(alone=[40.0, 50.0, 60.0, 30.0]).iloc[0]
    values = np.array([40.0, 50.0, 60.0, 30.0])
    assert (row["perturbed"], row["worst"], row["std"]) == (45.0, 30.0, values.std())
    assert row["se"] == pytest.approx(values.std(ddof=1) / 2) and row["changed_bits"] == pytest.approx(0.015)
    assert row["system"] == "alone" and row["perturbed_alone"] == 45.0 and np.isnan(row["recovery"])


def test_recovery_is_the_mean_of_paired_differences_and_its_error_is_theirs():
    rows = framed(alone=[40.0, 50.0, 60.0, 30.0], behind=[80.0, 85.0, 90.0, 75.0])
    row = rows[rows["generator"] == "ConvL"].iloc[0]
    gaps = np.array([40.0, 35.0, 30.0, 45.0])
    assert row["recovery"] == gaps.mean() and row["recovery_se"] == pytest.approx(gaps.std(ddof=1) / 2)
    assert paired([1.0], [0.5]) == (0.5, pytest.approx(np.nan, nan_ok=True))
    row = framed(alone=[40.0] * 4, clipped=[70.0] * 4).query("mitigation != 'none'").iloc[0]
    assert row["recovery"] == 30.0 and row["generator"] == "none"


def test_rank_correlation_is_of_means_and_its_interval_is_over_patterns_that_systems_share():
    systems, chips = np.arange(4.0)[:, None], np.array([10.0, 50.0, 90.0])
    rho, p, low, high = rank_correlation(10 * systems + chips, [1, 2, 4, 3])  # chips move all systems alike: no order changes
    assert [rho, low, high] == pytest.approx([0.8] * 3) and p == pytest.approx(8 / 24)  # of 24 orders, four agree as well and four as badly
    rho, _, low, high = rank_correlation([[50, 50, 50], [30, 60, 63], [20, 0, 90]], [2, 3, 1])  # on single chips they do
    assert rho == pytest.approx(1) == high and low < 0


@pytest.mark.parametrize("count", [6, 12])
def test_p_of_a_rank_correlation_is_the_share_of_orders_as_far_from_none(count):
    other = np.random.default_rng(1).permutation(count) ** 2.0
    rho, p = spearman(np.arange(count), other)
    found, theirs = stats.spearmanr(np.arange(count), other)
    assert rho == pytest.approx(found) and p == pytest.approx(theirs, abs=0.05)  # the t distribution is near, not equal
    assert spearman(np.arange(6), np.arange(6) ** 3) == (pytest.approx(1), pytest.approx(2 / 720))


def test_without_the_base_model_on_the_same_chips_there_is_no_recovery():
    assert np.isnan(framed(behind=[80.0] * 4).iloc[0]["recovery"])
    other = dataclasses.replace(ALONE, first_seed=1)
    made = {other.digest: record([40.0] * 4), BEHIND.digest: record([80.0] * 4)}
    assert frame([other, BEHIND], made)["recovery"].isna().all()


def test_a_profiled_chip_has_its_own_rate(tmp_path):
    path = tmp_path / "chip.npz"
    zero, one = np.eye(8, 16, dtype=bool), np.eye(8, 16, 3, dtype=bool)
    np.savez(path, stuck_at_0=zero, stuck_at_1=one)
    cell = dataclasses.replace(ALONE, error_model=f"chip_map:{path}")
    made = {cell.digest: record([40.0] * 4)}
    assert frame([cell], made)["rate"].item() == (zero | one).mean() != cell.rate
    path.unlink()
    assert np.isnan(frame([cell], made)["rate"].item())


def test_the_papers_numbers_stand_beside_its_own_setting_only():
    rows = framed(alone=[40.0] * 4, behind=[80.0] * 4).set_index("generator")
    assert rows.loc["none", "published_perturbed"] == 42.2 and rows.loc["ConvL", "published_perturbed"] == 87.2
    assert rows.loc["ConvL", "published_recovery"] == 45.1 and rows.loc["ConvL", "origin"] == "table12_cifar10"
    for cell in (
        dataclasses.replace(ALONE, error_model="bit_flips"),
        dataclasses.replace(ALONE, error_model="release_map_per_layer"),
        dataclasses.replace(ALONE, base=base("paper", "cifar10", "vgg11", "modern")),
        dataclasses.replace(ALONE, bits=4),
    ):
        assert frame([cell], {cell.digest: record([40.0] * 4)})["published_perturbed"].isna().all()


def test_published_accuracies_are_those_of_the_file_each_setting_once():
    known, rows = published.load(), published.accuracies()
    assert not rows.duplicated([*published.SYSTEM, "rate"]).any()
    for metric, column in (("PA_NF", "published_perturbed"), ("RP", "published_recovery")):
        assert set(rows[column].dropna()) <= set(known.loc[known["metric"].isin([metric, "PA", "PA_UIP"]), "mean"])
    table = known[(known["origin"] == "table12_cifar10") & (known["metric"] == "PA_NF")]
    ours = rows.query("dataset == 'CIFAR-10' and bits == 8 and loss_weight == 5 and flips == 0 and base_recipe == 'release'")
    ours = ours[(ours["trained_on"] == ours["base_model"]) & (ours["train_rate"] == ours["rate"]) & (ours["generator"] != "UIP")]
    assert len(table) == len(ours) == 60 and sorted(table["mean"]) == sorted(ours["published_perturbed"])
    one = rows[(rows["dataset"] == "CIFAR-10") & (rows["base_model"] == "VGG19") & (rows["trained_on"] == "ResNet18")]
    assert set(one["train_rate"]) == {0.015, 0.01} and set(one["bits"]) == {8}


def test_nothing_stored_is_one_line(workshop, refused):
    for cells in ([], [Cell(BASE, patterns=1)]):
        with refused("cell"):
            measured(cells, "smoke", measure=False)


def test_a_claim_is_kept_with_its_truth_and_strict_where_the_book_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("NFLIB_OUTCOMES", str(tmp_path))
    claim(True, "It holds, indeed.")
    claim(np.float64(1) > 2, "It does not.")
    assert (tmp_path / "claims.csv").read_text().splitlines() == ['True,"It holds, indeed."', "False,It does not."]
    monkeypatch.setenv("NFLIB_STRICT", "1")
    claim(np.bool_(True), "Still.")
    for condition in (False, np.nan, float("nan"), None):
        with pytest.raises(ClaimFails, match="never"):
            claim(condition, "This never holds.")


def test_a_table_has_eight_columns_and_its_csv_all_of_them(tmp_path, monkeypatch):
    monkeypatch.setenv("NFLIB_OUTCOMES", str(tmp_path))
    rows = framed(alone=[40.0, 50.0, 60.0, 30.0], behind=[80.0, 85.0, 90.0, 75.0])
    html = show(rows, ["generator", "rate", "perturbed"], "some", "A <caption>").data
    assert "BER (%) 1, chips 4, test images" in html  # what all rows share is no column
    assert "&lt;caption&gt;" in html and html.count("<th") >= 2
    lines = (tmp_path / "some.csv").read_text().splitlines()
    assert len(lines) == 3 and "recovery" in lines[0].split(",") and "accuracies" not in lines[0]
    with pytest.raises(ValueError, match="eight"):
        show(rows, list(rows)[:9])
    assert to_csv(rows) == to_csv(rows.copy())


SHAPES = {
    "ladder": lambda rows: figures.ladder(rows, panel="error_model", name="one"),
    "curve": lambda rows: figures.curve(rows, "rate", "perturbed", "system", error="se", xscale="log", name="one"),
    "bars": lambda rows: figures.bars(rows, "system", "perturbed", "error_model", "std", "published_perturbed", name="one"),
    "heatmap": lambda rows: figures.heatmap(rows, "generator", "base_model", "perturbed", name="one"),
    "scatter": lambda rows: figures.scatter(rows, "clean", "perturbed", "generator", "system", name="one"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_picture_is_the_same_bytes_again_and_has_words(shape, tmp_path, monkeypatch):
    rows, texts = framed(alone=[40.0, 50.0, 60.0, 30.0], behind=[80.0, 85.0, 90.0, 75.0]), []
    for place in "ab":
        monkeypatch.setenv("NFLIB_OUTCOMES", str(tmp_path / place))
        picture = SHAPES[shape](rows)
        texts.append((tmp_path / place / "one.svg").read_text())
        assert picture.alt and f'alt="{picture.alt[:5]}' in picture._repr_html_()
    assert texts[0] == texts[1] and len(texts[0]) > 5000


def test_a_user_s_style_changes_no_picture():
    def drawn() -> str:
        figure, (axis,) = figures.panels()
        axis.set(title="x")
        return figures.Picture(figure, "x").svg

    before = drawn()
    matplotlib.rcParams.update({"font.size": 30, "axes.facecolor": "red", "savefig.transparent": True})
    importlib.reload(figures)
    assert drawn() == before and "<svg" in before
