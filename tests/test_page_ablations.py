"""The ablations page: the frame by hand, which ablation a row belongs to, the paper beside it, the notebook from nothing."""

import json

import numpy as np
import pytest

from nflib import grids, notebooks, profiles, tables
from nflib.cells import Base, Cell
from nflib.eopm import GeneratorRecipe
from nflib.pages import ablations as page
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASE = Base("cifar10", "resnet18", BaseRecipe())
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip"}


def store(clean: float, perturbed: list[float], name: str = "", law: str = "release_map", **recipe) -> None:
    """A record of ResNet18, alone or behind a generator trained with two perturbed models a step, unless said otherwise."""
    generator = GeneratorRecipe(name, law=law, **{"models_per_step": 2, **recipe}) if name else None
    metrics = {"clean": clean, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    Store("paper").write(Cell("accuracy", BASE, generator, law=law, patterns=len(perturbed)), metrics, ORIGIN)


@pytest.fixture
def known(workshop):
    store(92.0, [30.0, 40.0])
    store(90.0, [70.0, 74.0], "conv_l", models_per_step=1)
    store(90.0, [78.0, 80.0], "conv_l")
    store(91.0, [60.0, 64.0], "conv_l", loss_weight=0.1)
    store(90.0, [29.0, 41.0], "universal")
    return tables.stored("paper")


def measured(rows):
    return rows[rows["PA_NF"].notna()].set_index(["generator", "models_per_step", "loss_weight"])


def test_known_records_give_a_known_frame(known):
    rows = measured(page.frame(known))
    assert list(rows.index) == [("ConvL", 1, 5), ("ConvL", 2, 5), ("ConvL", 2, 0.1), ("UIP", 2, 5)]
    assert list(rows["ablation"]) == ["N", "N and lambda", "lambda", "UIP"]
    assert list(rows["RP"]) == [37, 44, 27, 0] and list(rows["CA_NF"]) == [90, 90, 91, 90]
    assert list(rows["difference"].iloc[1:3]) == [7, -17]  # from N = 1; from lambda = 5 with the same N
    assert list(rows["difference_error"].iloc[1:3]) == [pytest.approx(1), pytest.approx(1)]  # of 8, 6; of -18, -16
    assert np.isnan(rows["difference"].iloc[0]) and np.isnan(rows["difference"].iloc[3])


def test_the_paper_stands_beside_lambda_and_uip_but_not_beside_other_n(known):
    rows = page.frame(known)
    here = measured(rows)
    columns = ["published_CA_NF", "published_PA_NF", "published_RP"]
    assert here.loc[("ConvL", 2, 5.0), columns].tolist() == [89.8, 87.8, 48.8]  # Table 10
    assert here.loc[("ConvL", 2, 0.1), columns].tolist() == [91.6, 65.7, 26.8]
    assert here.loc[("UIP", 2, 5.0), columns].tolist() == [91.8, 37.9, -1.0]  # Table 11
    assert here.loc[("ConvL", 2, 0.1), "RP_difference"] == pytest.approx(27 - 26.8)
    assert here.loc[("ConvL", 1, 5.0), [*columns, "RP_difference"]].isna().all()
    printed = page.frame((), "cifar10")
    assert len(printed) == 20 and printed["RP"].isna().all() and printed["published_RP"].notna().all()
    assert set(printed["ablation"]) == {"lambda", "UIP"} and len(rows) == len(printed) + 1  # N = 1 is not printed


def test_every_printed_sweep_trades_clean_for_perturbed_accuracy():
    """What the last sentence of the page says of the paper."""
    for _, some in page.part(page.frame((), "cifar10"), "lambda").groupby("base_model"):
        some = some.set_index("loss_weight")
        assert some.loc[0.01, "published_CA_NF"] > some.loc[5.0, "published_CA_NF"]
        assert some.loc[0.01, "published_PA_NF"] < some.loc[5.0, "published_PA_NF"]


def test_other_error_models_have_no_printed_numbers_and_series_of_their_own(workshop):
    store(92.0, [60.0, 70.0], law="bit_flips")
    store(91.0, [70.0, 74.0], "conv_l", "bit_flips", loss_weight=0.1)
    store(90.0, [70.0, 74.0], "conv_l")
    rows = measured(page.frame(tables.stored("paper"))).reset_index()
    assert set(rows["ablation"]) == {"one setting"}
    assert rows.loc[rows["error_model"] == "BitFlips"].filter(like="published_").isna().all(axis=None)


def test_without_its_base_model_a_generator_has_no_recovery(workshop):
    store(90.0, [70.0, 74.0], "conv_l", models_per_step=1)
    store(90.0, [78.0, 80.0], "conv_l")
    rows = page.frame(tables.stored("paper"))
    assert measured(rows)["RP"].isna().all() and measured(rows)["PA_NF"].tolist() == [72, 79]
    assert ">RP</th>" not in page.table(rows, "N").data and "alt=" in page.pictures(rows, "N").data
    assert "nan" not in page.summary(rows, "paper").data and "nothing to conclude" in page.meaning(rows).data


def test_the_same_records_in_another_order_give_the_same_bytes(known):
    assert tables.to_csv(page.frame(known[::-1])) == tables.to_csv(page.frame(known))


def test_without_records_the_page_says_so_and_shows_the_paper(workshop):
    rows = page.frame(())
    assert rows.empty and list(rows.columns) == page.COLUMNS
    said = page.summary(rows, "smoke").data
    assert "`nflib sweep ablations --profile smoke` measures it" in said and "0 of the " in said
    assert "ResNet18 (Table 10): from lambda 0.01 to 10, CA(NF) goes from 92.2 to 90.1 % and PA(NF) from 43.6 to 88.0 %" in said
    assert "at 1 %, UIP (Table 11): from −5.1 to +1.4 points" in said
    for shown in (page.table(rows, "UIP"), page.table(rows, "all"), page.pictures(rows, "N"), page.pictures(rows, "lambda")):
        assert "Nothing measured yet" in shown.data


def test_sentences_go_by_two_standard_errors(known):
    rows = page.frame(known)
    said = page.summary(rows, "paper").data
    assert "recovery +37.0 ± 3.0 with N = 1, +44.0 ± 4.0 with N = 2" in said
    assert "by +7.0 ± 1.0 points, more than two standard errors" in said
    assert "from lambda 0.1 to 5, CA(NF) goes from 91.0 to 90.0 % and PA(NF) from 62.0 to 79.0 %" in said
    text = page.meaning(rows).data
    assert "better than the smallest in 1 of 1 series, clearly worse in 0" in text
    assert "in 1 of 1 sweep, and CA(NF) is higher in 1" in text and "in 0 of 1 setting, at most +0.0 points" in text
    rows["difference_error"] = 4.0
    assert "not more than two standard errors" in page.summary(rows, "paper").data
    assert "better than the smallest in 0 of 1 series" in page.meaning(rows).data


def test_the_pictures_say_in_words_what_they_show(known):
    rows = page.frame(known)
    assert "ResNet18 + ConvL: PA(NF) 72.0 % with N = 1, 79.0 % with N = 2." in page.by_number(page.part(rows, "N")).alt
    alt = page.by_weight(page.part(rows, "lambda")).alt
    assert "ResNet18 + ConvL: PA(NF) from 62.0 % at lambda 0.1 to 79.0 % at 5." in alt
    assert "ResNet18 + ConvL, paper: PA(NF) from 43.6 % at lambda 0.01 to 88.0 % at 10." in alt


def test_small_lambdas_are_told_apart_in_the_table():
    assert ">0.01</td>" in page.table(page.frame((), "cifar10"), "lambda").data


def test_the_notebooks_defaults_are_cells_of_the_smoke_grid():
    given = {name: value for name, value in notebooks.parameters("ablations").items() if name not in ("device", "measure")}
    assert set(grids.ablations(**given)) < set(profiles.cells("smoke", "ablations"))


def test_the_notebook_runs_without_records_with_other_parameters(trained_workshop, tmp_path):
    """The number of perturbed models at 2 %; then lambda and the universal perturbation on the same base model."""

    def run(**changes: str) -> str:
        given = {"generator_names": "conv_s", "rate": "0.02", "patterns": "2", **changes}
        output = notebooks.execute("ablations", tmp_path / "out.ipynb", given)
        return json.dumps([cell.get("outputs") for cell in json.loads(output.read_text())["cells"]], ensure_ascii=False)

    shown = run(models_per_step="1,2", loss_weights="[]", universal="False")
    assert "with N = 1" in shown and "with N = 2" in shown and "at 2 %, VGG11 with ConvS" in shown and "from lambda 5" not in shown
    shown = run(models_per_step="[]", loss_weights="5,0.1")
    assert "from lambda 0.1 to 5" in shown and "with N = 1" not in shown and "at 2 %, UIP: recovery from" in shown
    records = [json.loads(path.read_text())["cell"] for path in (results() / "records" / "smoke" / "accuracy").glob("*.json")]
    recipes = [cell["generator"] for cell in records if cell["generator"]]
    settings = [(recipe["name"], recipe["models_per_step"], recipe["loss_weight"]) for recipe in recipes]
    assert sorted(settings) == [("conv_s", 1, 0.1), ("conv_s", 1, 5.0), ("conv_s", 2, 5.0), ("universal", 1, 5.0)]
