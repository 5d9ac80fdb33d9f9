"""The transfer page: the frame by hand, what is compared with what, the paper beside it, and the notebook from nothing."""

import json

import numpy as np
import pytest

from nflib import grids, notebooks, profiles, tables
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.pages import transfer as page
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASES = {name: Base("cifar10", name, BaseRecipe()) for name in ("resnet18", "vgg11", "vgg19")}
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}


def store(target: str, perturbed: list[float], on: tuple[str, ...] = (), rate: float = 0.015, law: str = "release_map") -> None:
    """A record of a target, alone (no `on`) or behind ConvL trained on `on` at `rate`."""
    recipe = GeneratorRecipe("conv_l", law=law, rate=rate) if on else None
    surrogates = () if on in ((), (target,)) else tuple(BASES[name] for name in on)
    metrics = {"clean": 90.0, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    Store("paper").write(Cell("accuracy", BASES[target], recipe, surrogates, law, patterns=len(perturbed)), metrics, ORIGIN)


@pytest.fixture
def known(workshop):
    """VGG11 alone, in relaxed access, behind each surrogate and behind both; ResNet18 behind its own generator."""
    store("vgg11", [40.0, 50.0])
    store("vgg11", [80.0, 84.0], ("vgg11",), rate=0.01)
    store("vgg11", [50.0, 64.0], ("resnet18",))
    store("vgg11", [60.0, 66.0], ("vgg19",))
    store("vgg11", [70.0, 71.0], ("resnet18", "vgg19"))
    store("resnet18", [30.0, 40.0])
    store("resnet18", [80.0, 82.0], ("resnet18",))
    return tables.stored("paper")


def measured(rows):
    return rows[rows["PA_NF"].notna()].set_index(["trained_for", "base_model"])


def test_known_records_give_a_known_frame(known):
    rows = measured(page.frame(known))
    assert list(rows.index) == [
        ("ResNet18", "ResNet18"), ("ResNet18", "VGG11"), ("VGG19", "VGG11"), ("ResNet18+VGG19", "VGG11"),
    ]  # fmt: skip
    assert list(rows["target"]) == ["own model", "unseen", "unseen", "unseen"]
    assert list(rows["RP"]) == [46, 12, 18, 25.5]
    assert list(rows["own_RP"].dropna()) == [37, 37, 37]  # of VGG11 trained at 1 %; ResNet18 was trained at 1.5 % only
    assert list(rows["own_difference"].dropna()) == [-25, -19, -11.5]
    both = rows.loc[("ResNet18+VGG19", "VGG11")]
    assert both["own_difference_error"] == pytest.approx(1.5)  # of -10 and -13
    assert (both["singles_difference"], both["singles_difference_error"]) == (10.5, pytest.approx(4.5))  # of 15 and 6
    assert rows["singles_difference"].notna().sum() == 1


def test_the_paper_stands_beside_and_fills_what_is_not_measured(known):
    rows = page.frame(known)
    here = measured(rows)
    printed = [17.0, 33.8, 34.8]  # Tables 1 and 21, VGG11 at 1 %, trained at 1.5 %
    assert list(here["published_RP"])[1:] == printed and (here["published_own_RP"] == [48.8, 45.1, 45.1, 45.1]).all()
    assert here["RP_difference"].to_numpy() == pytest.approx(here["RP"].to_numpy() - [50.1, *printed])
    assert here["published_singles_difference"].iloc[-1] == pytest.approx(34.8 - (17.0 + 33.8) / 2)
    printed = page.frame((), "cifar10")
    assert len(rows) == len(printed) > 80 and printed["RP"].isna().all() and printed["published_RP"].notna().all()
    setting = [*page.GROUP, "generator", "trained_for", "base_model"]
    assert not printed.duplicated(setting).any() and not rows.duplicated(setting).any()


def test_what_was_measured_stands_first_in_the_table(known):
    rows = page.frame(known)
    assert rows["record"].isna().iloc[: rows["record"].notna().sum()].any()  # not in the frame itself
    body = page.table(rows).data.split("<tbody>")[1].split("</tbody>")[0].split("\n")
    assert len(body) == len(rows) > 80
    for line, mean in zip(body, ("81.0", "57.0", "63.0", "70.5")):  # PA(NF), by hand
        assert f">{mean}<" in line


def test_other_error_models_have_no_printed_numbers(workshop):
    for on in ((), ("vgg11",), ("vgg19",)):
        store("vgg11", [60.0, 64.0], on, law="bit_flips")
    rows = measured(page.frame(tables.stored("paper")))
    assert list(rows.index) == [("VGG19", "VGG11")]
    assert rows.filter(like="published_").isna().all(axis=None) and rows["RP_difference"].isna().all()
    assert "published" not in page.pictures(rows.reset_index()).data


def test_a_target_that_was_not_measured_alone_has_no_recovery(workshop):
    store("vgg11", [50.0, 64.0], ("resnet18",))
    rows = page.frame(tables.stored("paper"))
    row = measured(rows).loc[("ResNet18", "VGG11")]
    assert row["PA_NF"] == 57 and np.isnan(row["RP"]) and np.isnan(row["own_difference"])
    assert "–" in page.table(rows).data and "nan" not in page.summary(rows, "paper").data
    assert page.meaning(rows).data.startswith("In the paper,")


def test_the_same_records_in_another_order_give_the_same_bytes(known):
    assert tables.to_csv(page.frame(known[::-1])) == tables.to_csv(page.frame(known))


def test_without_records_the_page_says_so_and_shows_the_paper(workshop):
    rows = page.frame(())
    assert rows.empty and list(rows.columns) == page.COLUMNS
    said = page.summary(rows, "smoke").data
    assert "`nflib sweep transfer --profile smoke` measures it" in said and "0 of the " in said
    assert "paper, all pairs: CIFAR-10, `release`, ReleaseMap, 1 %, trained at 1.5 % | 16 | +25.5 | +44.0 | 58 % |" in said
    assert "ours:" not in said and "nothing to conclude" in page.meaning(rows).data
    for shown in (page.table(rows), page.pictures(rows)):
        assert "Nothing measured yet" in shown.data


def test_sentences_count_only_what_is_more_than_two_standard_errors(known):
    rows = page.frame(known)
    assert "| ours: CIFAR-10, `release`, ReleaseMap, 1 %, trained at 1.5 % | 2 | +15.0 | +37.0 | 41 % |" in page.summary(rows, "paper").data
    text = page.meaning(rows).data  # RP 12 ± 2, 18 ± 2, 25.5 ± 4.5; against its own -25 ± 5, -19 ± 1, -11.5 ± 1.5
    assert "mostly helps" in text and "in 3 of 3 pairs" in text and "in 3 of 3, better in 0" in text
    assert "better by more than two standard errors in 1 of 1" in text
    rows.loc[rows["RP"].notna(), "RP"] *= -1
    assert "mostly harms" in page.meaning(rows).data


def test_unseen_targets_and_a_generators_own_base_model_are_held_against_the_paper_apart(known):
    rows = page.frame(known)
    own, unseen = (rows.loc[rows["RP"].notna() & ((rows["target"] == "own model") == is_own), "RP_difference"].dropna() for is_own in (True, False))
    text = page.summary(rows, "paper").data.replace("−", "-")
    assert len(own) == 1 and len(unseen) == 3
    assert f"never saw, in 3 settings that the paper prints too, our recovery minus the paper's is {unseen.mean():+.1f} points on average" in text
    assert f"own base model, in 1 setting that the paper prints too, our recovery minus the paper's is {own.mean():+.1f} points" in text
    assert "Unseen targets measured so far: VGG11 only." in text


def test_the_picture_says_in_words_what_it_shows(known):
    rows = page.frame(known)
    picture = page.matrix(rows[(rows["ber_percent"] == 1.0) & (rows["train_ber_percent"] == 1.5)])
    assert "ours, unseen: +12.0 to +25.5" in picture.alt and "paper, unseen: +10.0 to +45.7" in picture.alt
    assert 'alt="RP in percentage points. CIFAR-10' in picture._repr_html_()


def test_each_side_of_the_picture_has_the_targets_that_it_has_numbers_of(known, monkeypatch):
    drawn = {}
    monkeypatch.setattr(page.sns, "heatmap", lambda values, ax, xticklabels, **rest: drawn.setdefault(tuple(xticklabels), values))
    rows = page.frame(known)
    page.matrix(rows[(rows["ber_percent"] == 1.0) & (rows["train_ber_percent"] == 1.5)])
    ours, paper = drawn
    assert ours == ("ResNet18", "VGG11") and paper == ("ResNet18", "ResNet50", "VGG11", "VGG16", "VGG19")
    assert not np.isnan(drawn[ours]).all(axis=0).any() and not np.isnan(drawn[paper]).all(axis=0).any()
    assert {46, 12, 18, 25.5} <= set(drawn[ours][~np.isnan(drawn[ours])])


def test_the_notebooks_defaults_are_cells_of_the_smoke_grid():
    given = {name: value for name, value in notebooks.parameters("transfer").items() if name not in ("device", "measure")}
    assert set(grids.transfer(**given)) == set(profiles.cells("smoke", "transfer"))


def test_the_notebook_runs_without_records_with_other_parameters(trained_workshop, tmp_path):
    """True bit flips at other rates; then the same generator on chips with fewer errors, so that little is trained anew."""

    def run(**changes: str) -> str:
        given = {"surrogates": "vgg16", "base_models": "vgg11", "generator_names": "conv_s", "error_models": "bit_flips"}
        given |= {"train_rates": "0.02", "patterns": "2", **changes}
        output = notebooks.execute("transfer", tmp_path / "out.ipynb", given)
        return json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)

    shown = run()
    assert "ours: digits, `release`, BitFlips, 1 %, trained at 2 % | 1 |" in shown and "ours: digits, `release`, ReleaseMap" not in shown
    assert "of 1 pair and costs" in shown and "VGG16" in shown and "unseen" in shown
    shown = run(rates="0.005", ensemble="False")
    assert "ours: digits, `release`, BitFlips, 0.5 %, trained at 2 % | 1 |" in shown and "BitFlips, 1 %" not in shown
    records = [json.loads(path.read_text())["cell"] for path in (results() / "records" / "smoke" / "accuracy").glob("*.json")]
    assert {cell["rate"] for cell in records} == {0.01, 0.005} and {cell["patterns"] for cell in records} == {2}
    trained = {(cell["generator"]["rate"], len(cell["surrogates"])) for cell in records if cell["generator"]}
    assert trained == {(0.02, 1), (0.01, 0), (0.005, 0)}  # on the surrogate; in relaxed access at each rate
