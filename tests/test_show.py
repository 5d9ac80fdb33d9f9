"""What pages show: tables say the same everywhere, and lose nothing in the CSV."""

import base64

import numpy as np
import pandas as pd
import pytest

from nflib import figures, show

FRAME = pd.DataFrame({
    "base model": ["VGG11"] * 3, "BER %": [1.0] * 3, "generator": ["none", "ConvL", "UNetS"], "CA": [90.0, 88.0, np.nan],
    "paper reads": [2755968.0, 41508.0, np.nan], "RP": [-1.25, 0.5, 3.0], "K, % of bits": [0.00086, 0.0086, 0.086],
})  # fmt: skip


def test_a_column_of_one_value_is_said_once_and_stays_in_the_csv():
    page = show.table(FRAME, "name").data
    assert "In all rows: base model VGG11; BER 1 %." in page and "VGG11</td>" not in page and ">generator</th>" in page
    csv = base64.b64decode(page.split("base64,")[1].split('"')[0]).decode()
    assert csv.splitlines()[0].split(",")[:3] == ["base model", "BER %", "generator"] and csv.count("VGG11") == 3


def test_numbers_are_rounded_by_their_column_with_a_true_minus_and_a_dash_for_what_is_missing():
    page = show.table(FRAME, "name").data
    for text in ("2,755,968", "−1.2", "90.0", "–", "0.00086", "(3 rows)"):
        assert text in page
    assert "2755968.0" not in page.split("<p>")[0]


def test_a_table_of_one_row_or_none_keeps_its_columns():
    assert ">base model</th>" in show.table(FRAME[:1], "name").data and "(1 row)" in show.table(FRAME[:1], "name").data
    assert ">base model</th>" in show.table(FRAME[:0], "name").data and "(0 rows)" in show.table(FRAME[:0], "name").data


@pytest.mark.parametrize(("values", "words"), [([], "none"), (["a"], "a"), (["a", "b", "a"], "a and b"), ([1, 2, 3], "1, 2 and 3")])
def test_lists_in_words(values, words):
    assert show.listed(values) == words


def test_base_models_are_said_with_their_data_sets():
    rows = pd.DataFrame({"dataset": ["CIFAR-10", "GTSRB", "CIFAR-10", "CIFAR-10"], "base_model": ["VGG11", "VGG11", "ResNet18", "VGG11"]})
    assert show.bases(rows) == "VGG11 and ResNet18 on CIFAR-10, VGG11 on GTSRB" and show.bases(rows[:0]) == ""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("by -1.2 to +3 points, (-0.5)", "by −1.2 to +3 points, (−0.5)"),
        ("on 2026-11-26, Tables 12-15, 1e-05, seed-3", "on 2026-11-26, Tables 12-15, 1e-05, seed-3"),
        ("`nflib run -p rate -1` gives -1", "`nflib run -p rate -1` gives −1"),
    ],
)
def test_prose_has_a_true_minus_before_numbers_and_not_in_code(text, shown):
    assert show.prose(text).data == shown


def test_who_did_not_train_by_the_paper_s_algorithm_is_said():
    rows = pd.DataFrame({"generator": ["none", "ConvL", "ConvS"], "imitation_steps": [None, 10, 10], "steps": [None, 0, 0], "record": ["a", "b", "c"]})
    assert show.by_imitation(rows).startswith("**No generator here was trained by the paper's algorithm**")
    both = show.by_imitation(rows.assign(steps=[None, 0, 5]))
    assert both.startswith("**Of the 2 results behind a generator, 1 are of generators that were not trained by")
    assert show.by_imitation(rows.assign(steps=5)) == show.by_imitation(rows[:1]) == ""


@pytest.mark.parametrize(("panels", "moved"), [(1, True), (2, False)])
def test_a_lone_panels_title_begins_at_the_pictures_left_edge(panels, moved):
    """Centred, or above a panel with wide labels, a phone would cut it off; of several panels each keeps its own."""
    figure, axes = figures._figure(panels)
    for axis in axes:
        axis.set_title("what it shows", fontsize=9)
    figures.Picture(figure, "alt")
    assert figure.get_suptitle() == ("what it shows" if moved else "")
    assert {axis.get_title("left") for axis in axes} == ({""} if moved else {"what it shows"}) and axes[0].get_title("center") == ""


def test_a_generator_has_one_colour_in_all_pictures_and_systems_differ():
    first = figures.colours(["alone", "behind ConvS", "class patterns"])
    again = figures.colours(["UNetL", "ConvS", "none", "secded", "class patterns", "none"])
    assert first["behind ConvS"] == again["ConvS"] == figures.GENERATORS["ConvS"] and first["alone"] == again["none"]
    assert len(set(again.values())) == len(again) == 5 and list(again) == ["UNetL", "ConvS", "none", "secded", "class patterns"]
    assert len(figures.colours(f"system {number}" for number in range(11))) == 11  # more than there are dark ones
