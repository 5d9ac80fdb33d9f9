"""Everything that is derived from records: tables, figures, the README's results; written, checked, compared."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from IPython.display import Markdown

from nflib import figures, profiles, published, tables
from nflib.cells import cell_of, digest_of
from nflib.names import PROFILES, UserError
from nflib.pages import (
    ablations,
    base_recipe,
    contradictions,
    cost,
    error_models,
    mechanism,
    overhead,
    quantization,
    robust_training,
    scoreboard,
    seeds,
    sensitivity,
    shift,
    tradeoff,
    transfer,
    transformed_images,
    tsne,
)
from nflib.show import count, listed, official, points
from nflib.store import ROOT, Store, results
from nflib.study import Clock, duration
from nflib.tables import longest, longest_trained, stored, to_csv
from nflib.trained import choose_device, generator_key

PAGES = {
    "error_models": error_models,
    "base_recipe": base_recipe,
    "mechanism": mechanism,
    "cost": cost,
    "sensitivity": sensitivity,
    "tradeoff": tradeoff,
    "shift": shift,
    "seeds": seeds,
    "transfer": transfer,
    "quantization": quantization,
    "ablations": ablations,
    "robust_training": robust_training,
    "tsne": tsne,
    "transformed_images": transformed_images,
    "overhead": overhead,
}
TABLES: dict[str, Callable[[str], pd.DataFrame]] = {
    "accuracy": lambda profile: tables.accuracy(of_grid(profile, "accuracy")),
    "efficiency": lambda profile: tables.efficiency(of_grid(profile, "accuracy")),
    "weight_reads": lambda profile: tables.weight_reads(),
    "energy_saving": lambda profile: tables.energy_saving(),
    "inference_energy": lambda profile: tables.inference_energy(),
    **{name: lambda profile, name=name: PAGES[name].frame(of_grid(profile, name)) for name in PAGES},
    "transfer": lambda profile: transfer.frame(stored(profile, transfer.grid(profile))),
    "scoreboard": lambda profile: scoreboard.frame(stored(profile) + stored(profile, kind="overhead")),
    "contradictions": lambda profile: contradictions.frame(),
}
README = ROOT / "README.md"
MARKS = ("<!-- results: derived from results/records/ by `nflib tables`; do not edit -->\n", "<!-- end of results -->")


def of_grid(profile: str, table: str) -> list[dict]:
    """The records that a table of a profile rests on."""
    return stored(profile, profiles.cells(profile, table))


def status(profile: str, device: str = "auto") -> pd.DataFrame:
    """Per table of a profile: cells done, missing, and the time that the missing ones need on `device`."""
    store = Store(profile)
    clock = Clock(store, choose_device(device))
    rows = []
    for table in profiles.TABLES:
        cells = profiles.cells(profile, table)
        missing = [cell for cell in cells if not store.has(cell)]
        left = duration(clock.total(missing)) if missing else "-"
        rows.append({"table": table, "done": len(cells) - len(missing), "missing": len(missing), "time left": left})
    return pd.DataFrame(rows)


def path(profile: str, name: str) -> Path:
    """Where a derived table lies."""
    return results() / "tables" / profile / f"{name}.csv"


def _front(row: dict) -> str:
    """A line of the README's first table: what stands in front of a base model, and what it brings."""
    alone = row["generator"] == "none"
    front = "nothing" if row["how"] == mechanism.ALONE else mechanism.front(row)
    values = [row[name if alone else f"{name}_NF"] for name in ("CA", "PA")] + [row["PA_worst" if alone else "PA_NF_worst"]]
    if row["how"] == mechanism.ENCODER:
        front = f"*in its place:* the {row['base_model']} alone, {row['base_epochs']} epochs, {row['images']:,} images, no errors"
        values = [values[0], np.nan, np.nan]
    minutes = "" if np.isnan(row["training_minutes"]) else f"{row['training_minutes']:.0f} min"
    texts = ["–" if np.isnan(value) else f"{value:.1f}" for value in (*values, row["published_PA" if alone else "published_PA_NF"])]
    return f"| {front} | {minutes} | {' | '.join(texts)} |"


def readme_results() -> str:
    """The README's result tables: what each thing in front of a damaged base model at full size brings; and what a generator
    recovers under other error models."""
    grids = dict.fromkeys(cell for table in ("mechanism", "accuracy") for cell in profiles.cells("paper", table))
    rows, said, shown = mechanism.frame(stored("paper", grids)), [], set()
    own = rows[(rows["how"] != mechanism.ENCODER) & _as_printed(rows)]
    instead = tradeoff.frame(of_grid("paper", "tradeoff"))
    instead = instead[(instead["kind"] == "mitigation") & _as_printed(instead)]
    setting = ["dataset", "base_model", "base_epochs"]
    for key, some in sorted(own.groupby(setting, sort=False), key=lambda group: (-group[0][2], -len(group[1]))):  # the longest-trained first
        (dataset, model, epochs), lines = key, [_front(row) for row in some.to_dict("records")]
        if dataset not in shown:
            lines += [_front(row) for row in mechanism._encoders(rows, (dataset,)).reset_index().to_dict("records")]
        shown.add(dataset)
        for row in instead[(instead[setting] == list(key)).all(axis=1)].to_dict("records"):
            lines.append(f"| *no generator:* {row['system']} |  | {row['clean']:.1f} | {row['accuracy']:.1f} | {row['worst']:.1f} | – |")
        said += [
            f"**{dataset}, {model}** (recipe `release`, {epochs} epochs), accuracy in per cent, errors of ReleaseMap, the official code's map, at 1 %, {listed(some['patterns'])} chips; trained on {listed(some['trained_on'].dropna())}:", "",
            "| in front of it | training | without errors | under errors | worst chip | the paper |", "|---|---|---|---|---|---|", *lines, "",
        ]  # fmt: skip
    said += [official()]
    return "\n".join([*said, *_laws()]) + "\n"


def _as_printed(rows: pd.DataFrame) -> pd.Series:
    """Whether rows are of the setting that the official code has, at the higher of its rates."""
    return tables.comparable(rows) & (rows["ber_percent"] == 1)


def _laws() -> list[str]:
    """The README's other table: what the same generator recovers under each error model, the base recipes side by side."""
    rows = error_models.frame(of_grid("paper", "error_models"))
    rows = rows[(rows["generator"] != "none") & rows["RP"].notna()]
    one = ["dataset", "base_model", "base_recipe", "base_epochs", "error_model", "ber_percent", "generator"]
    rows = rows[rows["record"].isin(longest_trained(rows, one)["record"])]  # in the rows' own order
    laws = rows.groupby(["dataset", "base_model", "generator", "base_recipe", "base_epochs"])["error_model"].transform("nunique")
    most = laws.groupby([rows[name] for name in ("dataset", "base_model", "generator", "base_recipe")]).transform("max")
    rows = rows[laws == most]  # of each recipe the training that most error models were measured with
    rows = rows[rows.groupby(["dataset", "base_model", "generator"])["error_model"].transform("nunique") > 1]
    if rows.empty:
        return []
    said = ["", "Published numbers rest on the official code's error map, ReleaseMap, which lays each row out 16 times, by a slip. What it decides:"]
    for (dataset, model, generator), some in rows.groupby(["dataset", "base_model", "generator"], sort=False):
        some = some[some["base_epochs"] == some.groupby("base_recipe")["base_epochs"].transform("max")]
        recipes = dict(zip(some["base_recipe"], some["base_epochs"]))
        heads = [f"`{recipe}`, {epochs} epochs: alone | behind {generator} | recovery" for recipe, epochs in recipes.items()]
        said += [
            "", f"**{generator} in front of {dataset} {model} under each error model**, and trained under it, {listed(some['patterns'])} chips:", "",
            f"| error model | {' | '.join(heads)} |", "|---" * (1 + 3 * len(recipes)) + "|",
        ]  # fmt: skip
        for (law, rate), here in some.groupby(["error_model", "ber_percent"], sort=False):
            found, texts = here.set_index("base_recipe"), []
            for recipe in recipes:
                row = found.loc[recipe] if recipe in found.index else None
                texts.append("– | – | –" if row is None else f"{row['PA']:.1f} | {row['PA_NF']:.1f} | {points(row['RP'], row['RP_error'])}")
            said.append(f"| {law} {rate:g} % | {' | '.join(texts)} |".replace("-", "−"))
    return [*said, "", "± is the standard error of the recovery over chips."]


def readme(text: str) -> str:
    """README text with its results replaced by those that the records give."""
    before, _, rest = text.partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise UserError(f"{README} has lost its marks {MARKS[0].strip()!r} and {MARKS[1]!r}")
    return before + MARKS[0] + readme_results() + MARKS[1] + after


def pictures(profile: str) -> dict[Path, str]:
    """Every figure that is stored: {path: SVG text}.  The chips are those of VGG11 on the data set that the README shows."""
    records, shown = longest(of_grid(profile, "accuracy")), "cifar10" if profile == "paper" else "digits"
    alone = [r for r in records if (r["cell"]["base"]["dataset"], r["cell"]["base"]["model"], r["cell"]["generator"]) == (shown, "vgg11", None)]
    rows = tables.accuracy(records)
    made = {"chips": figures.chips(alone)} if alone else {}
    for (name, recipe, rate), some in rows.groupby(["dataset", "base_recipe", "ber_percent"], sort=True):
        if (some["generator"] != "none").any():
            key = f"recovery_{name}_{recipe}_{rate:g}".lower().replace("-", "")
            made[key] = figures.recovery(some, f"{name}, base recipe {recipe}, BER {rate:g} %")
    return {results() / "figures" / profile / f"{key}.svg": picture.text for key, picture in made.items()}


def write(profile: str) -> list[Path]:
    """Write a profile's tables and figures, and the README's results; returns the files."""
    made = {path(profile, name): to_csv(table(profile)) for name, table in TABLES.items()} | pictures(profile)
    for target, text in made.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    if results() == README.parent / "results":  # records of a folder elsewhere are not what the README speaks of
        README.write_text(readme(README.read_text()))
    return list(made)


def trainings(records: list[dict]) -> str:
    """How many trained models the records rest on, and how many of these were trained more than once, in words.

    Raises UserError where one model's trainings ended differently: accuracies of its records could not be compared chip by
    chip.  Losses tell them apart, for they are stored with all digits; checkpoint files differ in their dates too.
    """
    found = {}
    for record in records:
        cell, metrics = cell_of(record["cell"]), record["metrics"]
        keys = {"base": digest_of(cell.base), "generator": cell.generator and generator_key(cell), "teller": cell.teller and digest_of(cell.teller)}
        for what, key in keys.items():
            if training := metrics.get(f"{what}_training"):
                outcome = [training.get(name) for name in ("losses", "imitation_losses")]
                first, other, files = found.setdefault(key, (outcome, cell, set()))
                if outcome != first:
                    model = "generator" if what == "generator" else "base model"
                    raise UserError(
                        f"records {other.digest} and {cell.digest} ({cell.words}) rest on different trainings of one {model}; "
                        "delete those of one of them and measure them again"
                    )
                files.add(record["provenance"].get(what))
    again = sum(len(files) > 1 for _, _, files in found.values())
    return f"{count(len(found), 'trained model')}, {again} of them trained more than once, with equal losses"


def check() -> list[str]:
    """Records valid and of one training of each model, tables equal to what the records give, published numbers intact;
    UserError for what is not."""
    said = [f"published numbers intact: {len(published.load())} rows"]
    known = {profile: Store(profile).records() for profile in PROFILES}
    for profile, records in known.items():
        for name, table in TABLES.items():
            target = path(profile, name)
            if not target.exists() or target.read_text() != to_csv(table(profile)):
                raise UserError(f"table {target} is not what the records give; `nflib tables --profile {profile}` makes it")
        said.append(f"{profile}: {len(records)} records valid, {len(TABLES)} tables equal to what they give; {trainings(records)}")
    text = README.read_text()
    if readme(text) != text:
        raise UserError("README.md's results are not what the records give; `nflib tables` makes them")
    return [*said, "README's results equal to what the records give"]


def checks() -> Markdown:
    """The lines of `nflib check`, run as the page is made."""
    return Markdown("`nflib check` says:\n\n" + "\n".join(f"* {line}" for line in check()))


FAR = 0.01  # share of cells that may differ by more than a single cell may


def compare(profile: str, other: Path, one: tuple[float, float], all_cells: tuple[float, float]) -> pd.DataFrame:
    """Cells of this checkout beside the same cells in another results folder, measured anew.

    one: how far a single cell's clean and mean perturbed accuracy may differ, in all but a share FAR of the cells; all_cells:
    how far their means over all cells may; percentage points.  Another processor rounds differently, and training amplifies
    that in single cells, so that now and then a short one fails on one of the two.
    Columns: cell in words, accuracies here and there.  Raises UserError when a cell is missing or something is farther
    off; latencies must be there but may differ.
    """
    here, there = Store(profile), Store(profile, other)
    rows = []
    for cell in dict.fromkeys(cell for table in profiles.TABLES for cell in profiles.cells(profile, table)):
        if not here.has(cell) or not there.has(cell):
            raise UserError(f"cell {cell.digest} ({cell.words}) has no record in {(there if here.has(cell) else here).root}")
        a, b = (store.read(store.path(cell))["metrics"] for store in (here, there))
        if "clean" not in a:
            continue
        row = {"cell": cell.words, "clean": a["clean"], "clean_there": b["clean"]}
        if "perturbed" in a:
            row |= {"perturbed": np.mean(a["perturbed"]), "perturbed_there": np.mean(b["perturbed"])}
        rows.append(row)
    frame = pd.DataFrame(rows)
    for name, allowed, allowed_mean in zip(("clean", "perturbed"), one, all_cells):
        gap = frame[f"{name}_there"] - frame[name]
        if (gap.abs() > allowed).sum() > FAR * len(frame):
            far = frame.loc[gap.abs().idxmax()]
            said = f"{name} {far[name]:.1f} here, {far[f'{name}_there']:.1f} there; allowed {allowed:g}"
            raise UserError(f"{far['cell']}: {said}")
        if abs(gap.mean()) > allowed_mean:
            raise UserError(f"{name} accuracies differ by {gap.mean():+.1f} on average; allowed {allowed_mean:g}")
    return frame
