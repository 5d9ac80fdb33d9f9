"""The page "energy": errors and energy over the voltage; what it shows of SCALE-Sim is tested in test_simulate."""

import json

import numpy as np
import pytest

from nflib import notebooks, tables
from nflib.pages import energy


def test_a_read_saves_what_is_printed_at_one_per_cent_and_nothing_at_the_rate_of_vmin():
    rows = energy.over_voltage(safe_ber=1e-4).set_index("ber_percent")
    assert rows.loc[1.0].tolist() == pytest.approx([0.83, 0.694, 30.6])
    assert rows.loc[0.01].tolist() == [1.0, 1.0, 0.0]
    assert {0.35, 0.5, 1.5} <= set(rows.index) and rows["saving"].is_monotonic_increasing
    assert rows.loc[0.1, "voltage"] == pytest.approx(0.915)  # half of the way, in the rate's logarithm


def test_the_summary_compares_a_tenth_of_the_errors():
    saved = energy.over_voltage(1e-5, 0.5).set_index("ber_percent")["saving"]
    text = energy.voltage_summary(1e-5, 0.5).data
    assert "A read saves 50.0 % at a bit-error rate of 1 %. With a rate of 0.001 % assumed" in text
    assert f"a tenth of the errors leaves {2 * saved[0.1]:.0f} % of the saving" in text
    assert f"{saved[0.5]:.1f} % at 0.5 %, {saved[0.35]:.1f} % at 0.35 % and {saved[0.1]:.1f} % at 0.1 %" in text


def test_the_curves_begin_at_vmin_and_meet_in_the_printed_point(monkeypatch):
    drawn = []
    monkeypatch.setattr(energy.figures, "Picture", lambda figure, alt: drawn.append(figure))
    energy.voltage_picture(1e-5)
    errors, read = drawn[0].axes
    lines = [line.get_xydata() for line in errors.get_lines()]
    assert len(lines) == 4 and lines[-1].tolist() == [[0.83, 0.01]]
    assert all(np.interp(0.83, line[::-1, 0], np.log10(line[::-1, 1])) == pytest.approx(-2, abs=0.01) for line in lines[:-1])
    assert [line[0, 0] for line in lines[:-1]] == pytest.approx([1, 1, 1], abs=0.01)
    assert read.get_lines()[-1].get_xydata().tolist() == [[0.83, 0.694]]


def test_recovery_is_drawn_against_the_paper_s_savings_and_the_true_ones_whatever_the_image_size(monkeypatch):
    drawn = []
    monkeypatch.setattr(energy.figures, "Picture", lambda figure, alt: drawn.append(figure))
    monkeypatch.setattr(energy.show, "gallery", list)
    energy.pictures(0.694, [])
    assert len(drawn) == 4
    for figure, at in zip(drawn, (6.6, 6.6, -21.8, -21.5)):  # VGG11 with ConvL, which recovers 45.1 points in the paper: ES, true ES, MAC-ES, true MAC-ES
        places = [line.get_xydata()[0] for line in figure.axes[0].get_lines() if len(line.get_xydata()) == 1]
        assert any(y == pytest.approx(45.1) and x == pytest.approx(at, abs=0.06) for x, y in places)


def test_what_energy_means_names_the_best_and_the_worst_pair():
    saving = tables.energy_saving()
    best, worst = saving["true_ES"].max(), saving["true_ES"].min()
    said = energy.meaning(saving).data
    assert f"most for ResNet50 with UNetS ({best:.1f} %), least for VGG11 with ConvL ({worst:.1f} %)" in said


@pytest.mark.parametrize("image_size", [32, 224])
def test_of_the_whole_a_pair_saves_what_low_voltage_saves_less_all_that_the_generator_takes(image_size):
    rows = tables.inference_energy(image_size, 0.6)
    assert len(rows) == 30 and (rows["large_share"] < rows["share"]).all()
    for size, map_pj in (("", 20.0), ("large_", 100.0)):
        assert rows[f"{size}low_voltage"].tolist() == pytest.approx((0.4 * rows[f"{size}share"]).tolist())
        whole = tables.picojoules(image_size, 1.0, map_pj).sum(axis=1)
        extra = [100 * whole[row.generator] / whole[row.base_model] for row in rows.itertuples()]
        assert (rows[f"{size}low_voltage"] - rows[f"{size}saved"]).tolist() == pytest.approx(extra)


def test_the_whole_inference_in_words():
    rows = tables.inference_energy(32)
    text = energy.whole_summary(32).data
    assert f"reading weights takes **{rows['share'].min():.0f} to {rows['share'].max():.0f} %** of a base model's energy" in text
    assert f"{(rows['saved'] < 0).sum()} pairs of 30 ({(rows['large_saved'] < 0).sum()} pairs) would cost more than they save" in text
    assert "most VGG19 with ConvS, least VGG11 with ConvL" in text and rows.loc[rows["saved"].idxmax(), "base_model"] == "VGG19"
    assert "ResNet18: 481 µJ, 56 % of it weight reads" in energy.whole_picture(32).alt
    assert "(30 rows)" in energy.whole_table(32).data


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"energy_ratio": "0.8", "image_size": "224"}, ["At 224×224 pixels and an energy ratio of 0.8", "At 32×32 pixels and an energy ratio of 0.8", "saves 20.0 %"]),
        ({"safe_ber": "0.0001", "profile": "smoke"}, ["With a rate of 0.01 % assumed at Vmin", "At 32×32 pixels and an energy ratio of 0.694", "At 224×224"]),
    ],
)  # fmt: skip
def test_the_notebook_runs_with_other_parameters(given, wanted, workshop, tmp_path):
    output = notebooks.execute("energy", tmp_path / "out.ipynb", given)
    text = json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)
    assert [words for words in wanted if words not in text] == []
