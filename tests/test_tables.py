"""Tables: known records give a known frame; the same records give the same bytes; what is missing shows as missing."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from nflib import cli, derive, energy, figures, notebooks, profiles, report, tables
from nflib.cells import Base, Cell, plain
from nflib.eopm import GeneratorRecipe
from nflib.names import PROFILES, TABLES, UserError
from nflib.store import Store, results
from nflib.training import BaseRecipe

BASE = Base("cifar10", "vgg11", BaseRecipe())
ALONE = Cell("accuracy", BASE, patterns=4)
WITH = Cell("accuracy", BASE, GeneratorRecipe("conv_l"), patterns=4)
ORIGIN = {"commit": "0" * 40, "dirty": False, "device": "a chip", "threads": 1, "precision": "fp32", "torch": "2"}


def store(cell: Cell, clean: float, perturbed: list[float]) -> None:
    facts = {"seconds": 1.0}
    metrics = {"clean": clean, "perturbed": perturbed, "changed_bits": [0.005] * len(perturbed), "images": 100}
    metrics |= {"base_training": facts, "generator_training": facts if cell.generator else None, "evaluation_seconds": 1.0}
    command = f"nflib sweep accuracy --profile paper --only digest={cell.digest}"
    Store("paper").write(cell, metrics, ORIGIN | {"command": command, "date": "2026-01-01"})


@pytest.fixture
def two(workshop):
    store(ALONE, 90.0, [40.0, 50.0, 60.0, 50.0])
    store(WITH, 88.0, [80.0, 82.0, 84.0, 86.0])
    return tables.accuracy(tables.stored("paper"))


def test_known_records_give_a_known_frame(two):
    assert list(two["generator"]) == ["none", "ConvL"]
    row = two.iloc[1]
    assert (row["CA"], row["PA"], row["PA_worst"], row["CA_NF"], row["PA_NF"], row["RP"]) == (90, 50, 40, 88, 83, 33)
    assert row["PA_std"] == pytest.approx(np.std([40, 50, 60, 50])) and row["PA_NF_worst"] == 80
    assert row["RP_error"] == pytest.approx(np.std([40, 32, 24, 36], ddof=1) / 2)
    published = [row[f"published_{name}"] for name in ("CA", "PA", "CA_NF", "PA_NF", "RP")]
    assert published == [88.4, 42.2, 89.6, 87.2, 45.1]
    assert row["RP_difference"] == pytest.approx(33 - 45.1)


def test_what_a_generator_does_without_errors_is_said_beside_the_paper(two):
    text = report.accuracy_summary(two).data
    assert "**Without errors** the base model is more accurate behind the generator in 0 of 1 case, by more than two standard errors over test images." in text
    assert "The paper prints a higher clean accuracy with the generator than without for 4 of 60 on CIFAR-10 (by up to 1.4 points), each training counted." in text
    # 100 images: from 90 % the standard error of a difference is at least 3 points, with 98 % 3.3
    for clean, said in ((96.0, " 0 of 1 case"), (98.0, " 1 of 1 case, by more than two standard errors over test images; most, CIFAR-10 VGG11 with ConvL: 90.0 → 98.0 %.")):
        assert said in report.accuracy_summary(two.assign(CA_NF=clean)).data
    low = two.assign(CA=80.0, CA_NF=95.0)
    assert "but this base model is 8.4 points less accurate than the paper's" in report.accuracy_summary(low).data
    unsure = pd.concat([two.assign(CA=93.0, CA_NF=96.0, images=10000), two.assign(CA_NF=96.0, generator=["none", "ConvS"])], ignore_index=True)
    assert " 1 of 2 cases" in report.accuracy_summary(unsure).data and "with ConvL: 93.0 → 96.0 %" in report.accuracy_summary(unsure).data
    assert "The paper" not in report.accuracy_summary(two.assign(base_recipe="modern")).data


def test_what_is_printed_and_not_measured_has_rows_with_dashes(two):
    empty = tables.accuracy([])
    assert [len(tables.with_unmeasured(empty, [name])) for name in ("cifar10", "gtsrb", "imagenet10", "cifar100", "digits")] == [70, 70, 35, 105, 0]
    rows = tables.with_unmeasured(two, ["cifar10", "imagenet10"])
    assert len(rows) == 70 + 35 and rows["record"].notna().sum() == len(two) == 2  # those two are not there twice
    row = rows[(rows["base_model"] == "ResNet50") & (rows["generator"] == "UNetL") & (rows["ber_percent"] == 1)].iloc[0]
    assert np.isnan(row["PA_NF"]) and (row["published_PA"], row["published_PA_NF"], row["published_RP"]) == (26.1, 75.5, 49.4)
    assert "Nothing is measured of ImageNet-10 yet" in report.how_measured(two, "paper", ["cifar10", "imagenet10"]).data
    assert "–" in report.accuracy_table(rows).data


def test_where_nothing_is_measured_it_is_said_what_is(two, workshop):
    none = two[:0]
    assert "**Nothing is measured of digits yet at full size.** Records are there of CIFAR-10. " in report.how_measured(none, "paper", ["digits"]).data
    assert "**Nothing is measured yet at smoke scale.** `nflib sweep accuracy --profile smoke` measures" in report.how_measured(none, "smoke").data


def test_what_accuracy_means_is_said_of_what_is_measured(two):
    said = report.meaning(two).data
    assert "brings accuracy back in 1 of 1 case" in said and "in the median (−2.0 change)" in said and "independent flips" not in said
    flips = two.assign(error_model="BitFlips", RP=50.0)
    assert "more than under independent flips in 0 of 1 pair measured under both" in report.meaning(pd.concat([two, flips])).data
    assert report.meaning(two[:0]).data == "There is nothing to conclude yet."


def test_pictures_are_of_one_data_set_and_say_which(workshop, monkeypatch):
    other = dataclasses.replace(ALONE, base=dataclasses.replace(BASE, dataset="gtsrb"))
    store(ALONE, 90.0, [40.0, 50.0, 60.0, 50.0])
    monkeypatch.setattr(profiles, "cells", lambda profile, table: [ALONE, other])
    before = {path.name: text for path, text in derive.pictures("paper").items()}
    store(other, 80.0, [10.0, 10.0, 10.0, 10.0])
    assert before.keys() == {"chips.svg"} and {path.name: text for path, text in derive.pictures("paper").items()} == before
    records = tables.stored("paper")
    with pytest.raises(ValueError):
        figures.chips(records)
    shown = report.chip_pictures(records).data
    assert shown.count("<img") == 2 and "CIFAR-10 VGG11: perturbed" in shown and "GTSRB VGG11: perturbed" in shown
    half = [r | {"cell": r["cell"] | {"rate": 0.005}} for r in records]
    assert "at 0.5 % bit-error rate" in report.chip_pictures(half).data  # where 1 % is not measured


def test_provenance_names_both_seeds(workshop):
    store(dataclasses.replace(WITH, generator=dataclasses.replace(WITH.generator, seed=7)), 88.0, [80.0, 82.0, 84.0, 86.0])
    shown = report.provenance_table(tables.stored("paper"), "paper").data
    assert ">seed of the base model</th>" in shown and ">of the generator</th>" in shown and '<td class="number">7</td>' in shown


def test_a_generator_without_its_base_model_on_the_same_patterns_has_no_recovery(workshop):
    store(WITH, 88.0, [80.0, 82.0, 84.0, 86.0])
    store(dataclasses.replace(ALONE, first_seed=1), 90.0, [40.0, 50.0, 60.0, 50.0])
    rows = tables.accuracy(tables.stored("paper")).set_index("generator")
    assert np.isnan(rows.loc["ConvL", "RP"]) and np.isnan(rows.loc["ConvL", "PA"]) and rows.loc["ConvL", "PA_NF"] == 83
    assert "–" in report.accuracy_table(rows.reset_index()).data


def test_the_same_records_give_the_same_bytes_and_check_finds_a_changed_table(two, monkeypatch):
    monkeypatch.setattr(profiles, "cells", lambda profile, table: [ALONE, WITH] if profile == "paper" else [])
    monkeypatch.setattr(derive, "README", results().parent / "README.md")
    derive.README.write_text(derive.MARKS[0] + derive.MARKS[1])
    first = {path: path.read_bytes() for profile in PROFILES for path in derive.write(profile)}
    assert any(path.suffix == ".svg" for path in first)
    assert {path: path.read_bytes() for profile in PROFILES for path in derive.write(profile)} == first
    assert len(derive.check()) == 4
    before = derive.README.read_text()
    stranger = results().parent / "elsewhere" / "README.md"  # of another folder's records
    stranger.parent.mkdir()
    stranger.write_text(derive.MARKS[0] + derive.MARKS[1])
    with monkeypatch.context() as patched:
        patched.setattr(derive, "README", stranger)
        derive.write("paper")
    assert stranger.read_text() == derive.MARKS[0] + derive.MARKS[1] and derive.README.read_text() == before
    path = derive.path("paper", "accuracy")
    path.write_text(path.read_text().replace("33.0", "34.0", 1))
    with pytest.raises(UserError, match="is not what the records give"):
        derive.check()


def test_the_readme_says_what_stands_in_front_of_each_base_model_and_what_other_error_models_leave(two, monkeypatch):
    tiled, short = {"law": "release_map_tiling_corrected"}, dataclasses.replace(BASE, recipe=BaseRecipe(epochs=12))
    modern = {"base": dataclasses.replace(BASE, recipe=BaseRecipe("modern", epochs=20))}
    fixed = [dataclasses.replace(ALONE, **tiled), dataclasses.replace(WITH, generator=dataclasses.replace(WITH.generator, **tiled), **tiled)]
    other = [dataclasses.replace(ALONE, **modern), dataclasses.replace(WITH, **modern)]
    encoder = dataclasses.replace(ALONE, base=Base("cifar10", "conv_l_encoder", BaseRecipe("modern")))
    again = dataclasses.replace(encoder, law="bit_flips")
    resnet = dataclasses.replace(ALONE, base=Base("cifar10", "resnet18", BaseRecipe()))
    spared = [dataclasses.replace(ALONE, table="mitigation", mitigation="spare_sign", base=base) for base in (BASE, short)]
    found = {
        fixed[0]: (90.0, [70.0] * 4), fixed[1]: (89.0, [69.0, 71.0, 69.0, 71.0]), other[0]: (91.0, [60.0] * 4), other[1]: (90.0, [70.0] * 4),
        encoder: (86.9, [30.0] * 4), again: (86.9, [20.0] * 4), resnet: (93.0, [41.0] * 4), spared[0]: (90.0, [85.0] * 4), spared[1]: (80.0, [75.0] * 4),
        dataclasses.replace(ALONE, base=short): (80.0, [45.0] * 4),
    }  # fmt: skip
    for cell, values in found.items():
        store(cell, *values)
    grids = {"error_models": [ALONE, WITH, *fixed, *other], "tradeoff": spared}
    monkeypatch.setattr(profiles, "cells", lambda profile, table: grids.get(table, [ALONE, WITH, *found]))
    text = derive.readme_results()
    for line in (
        "| nothing |  | 90.0 | 50.0 | 40.0 | 42.2 |",
        "| ConvL, Eq. 3 from the start | 0 min | 88.0 | 83.0 | 80.0 | 87.2 |",
        "| *in its place:* the ConvL encoder alone, 300 epochs, 100 images, no errors |  | 86.9 | – | – | – |",
        "| *no generator:* sign bit spared |  | 90.0 | 85.0 | 85.0 | – |",
        "| nothing |  | 93.0 | 41.0 | 41.0 | 38.9 |",
        "| error model | `release`, 300 epochs: alone | behind ConvL | recovery | `modern`, 20 epochs: alone | behind ConvL | recovery |",
        "| ReleaseMap 1 % | 50.0 | 83.0 | +33.0 ± 3.4 | 60.0 | 70.0 | +10.0 ± 0.0 |",
        "| ReleaseMap, tiling corrected 1 % | 70.0 | 70.0 | +0.0 ± 0.6 | – | – | – |",
    ):
        assert text.splitlines().count(line) == 1, line
    parts = ["VGG11** (recipe `release`, 300 epochs)", "encoder alone", "ResNet18** (recipe", "VGG11** (recipe `release`, 12 epochs)", "spared |  | 80.0", "What it decides"]
    assert sorted(parts[:2] + parts[-1:], key=text.index) == [*parts[:2], parts[-1]]
    assert all(text.count(part) == 1 for part in parts) and text.index(parts[3]) < text.index(parts[4])


def test_a_changed_record_is_found_by_check(two, capsys):
    path = Store("paper").path(ALONE)
    path.write_text(path.read_text().replace("60.0", "61.0"))
    assert cli.main(["check"]) == 2
    assert "checksum" in capsys.readouterr().err


def trained(cell: Cell, **changed) -> dict:
    """A record of a base model with two losses, and of a generator with one; a keyword changes one of the facts."""
    facts = {"base": [0.5, 0.25], "generator": [[1, 0.5, 0.5]], "imitation": [[1, 0.125]], "files": ("a", "b")} | changed
    metrics = {"base_training": {"losses": facts["base"], "seconds": 1.0}, "generator_training": None}
    if cell.generator:
        metrics["generator_training"] = {"losses": facts["generator"], "imitation_losses": facts["imitation"]}
    return {"cell": plain(cell), "metrics": metrics, "provenance": dict(zip(("base", "generator"), facts["files"]))}


def test_models_that_were_trained_more_than_once_must_have_come_out_equal():
    other = dataclasses.replace(WITH, rate=0.005)
    records = [trained(ALONE), trained(WITH), trained(other)]
    assert derive.trainings(records) == "2 trained models, 0 of them trained more than once, with equal losses"
    again = [trained(WITH), trained(other, files=("a2", "b2"))]
    assert derive.trainings(records[:1] + again).startswith("2 trained models, 2 of them trained more than once")
    seed = dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, seed=1))
    assert derive.trainings([*records, trained(dataclasses.replace(ALONE, base=seed), base=[0.75, 0.5])]).startswith("3 trained models, 0")
    for cell, changed, model in ((ALONE, {"base": [0.5, 0.25000001]}, "base model"), (WITH, {"generator": [[1, 0.5, 0.25]]}, "generator"), (WITH, {"imitation": [[1, 0.25]]}, "generator")):
        with pytest.raises(UserError, match=f"records {WITH.digest} and .* rest on different trainings of one {model}; delete those"):
            derive.trainings([trained(WITH), trained(dataclasses.replace(cell, patterns=7), **changed)])


def test_what_tells_class_patterns_must_be_the_model_that_was_measured_alone():
    teller = Base("cifar10", "conv_s_encoder", BaseRecipe("modern"))
    told = trained(Cell("accuracy", BASE, GeneratorRecipe("class_patterns"), patterns=4, teller=teller))
    told["metrics"]["teller_training"] = {"losses": [0.5, 0.25]}
    alone = [trained(Cell("accuracy", teller, patterns=4), base=losses) for losses in ([0.5, 0.25], [0.5, 0.125])]
    assert derive.trainings([told, alone[0]]).startswith("3 trained models, 1 of them")
    with pytest.raises(UserError, match="rest on different trainings of one base model"):
        derive.trainings([told, alone[1]])


def test_compare_finds_missing_and_differing_cells(workshop, tmp_path, monkeypatch):
    monkeypatch.setattr(profiles, "cells", lambda profile, table: [ALONE])
    store(ALONE, 90.0, [40.0, 50.0, 60.0, 50.0])
    with pytest.raises(UserError, match="has no record in"):
        derive.compare("paper", tmp_path / "other", (3, 10), (3, 10))
    monkeypatch.setenv("NFLIB_RESULTS", str(tmp_path / "other"))
    store(ALONE, 92.0, [40.0, 50.0, 60.0, 54.0])
    monkeypatch.setenv("NFLIB_RESULTS", str(workshop / "results"))
    there = tmp_path / "other"
    frame = derive.compare("paper", there, (3, 10), (3, 10))
    assert frame.loc[0, ["clean", "clean_there", "perturbed", "perturbed_there"]].tolist() == [90, 92, 50, 51]
    with pytest.raises(UserError, match=r"clean 90\.0 here, 92\.0 there; allowed 1"):
        derive.compare("paper", there, (1, 10), (3, 10))
    with pytest.raises(UserError, match=r"perturbed 50\.0 here, 51\.0 there"):
        derive.compare("paper", there, (3, 0.5), (3, 10))
    with pytest.raises(UserError, match=r"clean accuracies differ by \+2\.0 on average"):
        derive.compare("paper", there, (3, 10), (1, 10))


def test_compare_bears_one_failed_training_in_a_hundred_and_not_two(workshop, tmp_path, monkeypatch):
    cells = [dataclasses.replace(ALONE, first_seed=number) for number in range(100)]
    monkeypatch.setattr(profiles, "cells", lambda profile, table: cells)
    for cell in cells:
        store(cell, 90.0, [50.0] * 4)
    there = tmp_path / "other"
    monkeypatch.setenv("NFLIB_RESULTS", str(there))
    for number, cell in enumerate(cells):
        store(cell, 60.0 if number == 7 else 90.0, [50.0] * 4)
    monkeypatch.setenv("NFLIB_RESULTS", str(workshop / "results"))
    assert len(derive.compare("paper", there, (25, 40), (3, 6))) == 100
    monkeypatch.setenv("NFLIB_RESULTS", str(there))
    Store("paper").path(cells[8]).unlink()
    store(cells[8], 61.0, [50.0] * 4)
    monkeypatch.setenv("NFLIB_RESULTS", str(workshop / "results"))
    with pytest.raises(UserError, match=r"clean 90\.0 here, 60\.0 there; allowed 25"):
        derive.compare("paper", there, (25, 40), (3, 6))


def test_energy_tables_reproduce_the_printed_ones():
    saving = tables.energy_saving()
    assert ((saving["ES"] - saving["published_ES"]).abs() <= 0.06).sum() == 29
    assert ((saving["MAC_ES"] - saving["published_MAC_ES"]).abs() <= 0.06).all()
    reads = tables.weight_reads()
    assert (reads["reads"] == reads["published_reads"]).all()
    halved = tables.energy_saving(32, energy.ENERGY_RATIO / 2)
    assert (halved["ES"] - saving["ES"]).to_numpy() == pytest.approx(100 * energy.ENERGY_RATIO / 2)


def test_efficiency_is_recovery_over_parameters(two):
    rows = tables.efficiency(tables.stored("paper")).set_index(["base_model", "generator", "ber_percent"])
    assert rows.loc[("VGG11", "ConvL", 1.0), "ReleaseMap"] == pytest.approx(33 / 0.723273)
    assert rows["ReleaseMap"].notna().sum() == 1
    off = (rows["published"] - rows["published_recomputed"]).abs() > 0.5
    assert list(rows.index[off]) == [("VGG11", "UNetL", 1.0)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "scoreboard"], "notebook 'scoreboard' has no cells of its own"),
        (["sweep", "energy", "--only", "model=vgg12"], "no cell has model=vgg12; there are: resnet18"),
        (["sweep", "acuracy"], "did you mean 'accuracy'"),
        (["sweep", "--profile", "papr"], "did you mean 'paper'"),
        (["sweep", "--only", "model=vgg12"], "no cell has model=vgg12"),
        (["sweep", "--only", "modell=vgg11"], "unknown key 'modell'"),
        (["sweep", "--device", "tpu"], "unknown device 'tpu'"),
        (["run", "acuracy"], "did you mean 'accuracy'"),
    ],
)
def test_the_command_line_refuses_in_one_line(words, message, capsys, workshop):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sweep", "--budget", "soon"], "is not a time such as"),
        (["sweep", "--list"], "unrecognized arguments: --list; see nflib sweep --help"),
        (["swep"], "invalid choice: 'swep'"),
        ([], "the following arguments are required: VERB"),
    ],
)
def test_words_that_do_not_parse_are_refused_in_one_line(words, message, capsys):
    with pytest.raises(SystemExit) as refused:
        cli.main(words)
    error = capsys.readouterr().err
    assert refused.value.code == 2 and message in error and error.count("\n") == 1


def test_help_names_every_notebook_and_table_without_loading_torch():
    program = "import sys; from nflib import cli; cli.parser(); print('torch' in sys.modules); cli.main(sys.argv[1:])"
    for verb, names in (("run", notebooks.names()), ("sweep", TABLES)):
        done = subprocess.run([sys.executable, "-c", program, verb, "--help"], capture_output=True, text=True, env={**os.environ, "COLUMNS": "300"})
        assert done.stdout.startswith("False\n") and all(name in done.stdout for name in names)


def test_the_longest_and_the_most_measured_training_are_told_apart(workshop):
    """30 epochs: two systems under two laws; 12 epochs: three systems under one; another base model has one training only."""
    short, long = (dataclasses.replace(BASE, recipe=dataclasses.replace(BASE.recipe, epochs=epochs)) for epochs in (12, 30))
    recipes = [None, *(GeneratorRecipe(name, steps=10) for name in ("conv_s", "unet_l"))]
    cells = [Cell("accuracy", short, recipe, patterns=2) for recipe in recipes]
    cells += [Cell("accuracy", long, recipe, patterns=2, law=law) for recipe in recipes[:2] for law in ("release_map", "bit_flips")]
    cells.append(Cell("accuracy", dataclasses.replace(short, model="resnet18"), patterns=2))
    records = [{"cell": plain(cell)} for cell in cells]
    assert tables.longest(records) == [*records[3:7], records[7]]
    assert tables.fullest(records) == [*records[:3], records[7]]
    assert tables.fullest(records[1:]) == records[3:]  # as many systems, but more settings
    assert tables.longest([]) == tables.fullest([]) == []
