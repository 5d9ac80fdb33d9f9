"""Page "cost": recovery against the training that it took, a line a recipe; each point is a generator trained to its end.

Points are chosen on validation images; what is said of them was measured on test images.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter

from nflib import data, figures, generators, grids, report, show, tables
from nflib.cells import FIRST_SEED, cell_of, digest_of
from nflib.eopm import GeneratorRecipe
from nflib.pages import mechanism

FULL = GeneratorRecipe()  # the official recipe at its full length, 300 epochs of CIFAR-10: README of the official code
FULL_IMAGES = FULL.steps * FULL.batch * FULL.models_per_step
LIKE_CIFAR10 = [data.LABELS[name] for name in ("cifar10", "cifar100")]  # as many training images, hence as many steps
GOAL = 50  # times fewer model-images
ALONE, OFFICIAL, PLAIN, IMITATED, BOTH = HOW = (
    mechanism.ALONE,
    "official recipe",
    "ours, Eq. 3 from the start",
    "ours, imitation only",
    "ours, imitation, then Eq. 3",
)
OURS = {mechanism.PLAIN: PLAIN, mechanism.IMITATED: IMITATED, mechanism.BOTH: BOTH}
GROUP = [*tables.SETTING, "generator"]
COLUMNS = [*GROUP, "how", "imitation_steps", "steps", "models_per_step", "batch", "seed", "model_images", "training_minutes"]
CHOICE = {"PA_NF": "validation_PA_NF", "RP": "validation_RP", "RP_error": "validation_RP_error"}
COLUMNS += [*tables.MEASURED, *CHOICE.values(), "published_PA", "published_PA_NF", "hardware", "record"]
SHOWN = {"dataset": "data set", "base_model": "base model", "generator": "generator", "how": "training", "imitation_steps": "imitation steps", "steps": "steps of Eq. 3"} | report.SHOWN
SHOWN |= {"images": "test images", "models_per_step": "N", "model_images": "model-images", "training_minutes": "training (s)"}
SHOWN |= {"validation_PA_NF": "validation PA(NF)", "validation_RP": "validation RP", "validation_RP_error": "± error "}
FIRST = ("generator", "how", "imitation_steps", "steps", "PA", "PA_NF", "RP", "RP_error", "validation_PA_NF", "model_images", "training_minutes")
SHOWN = {name: SHOWN[name] for name in (*FIRST, *SHOWN)}  # results before settings
LOOKS = {  # colour, face, marker, line
    OFFICIAL: (mechanism.ORANGE, mechanism.ORANGE, "s", "-"),
    PLAIN: (mechanism.BLUE, "white", "o", "--"),
    IMITATED: (mechanism.PINK, mechanism.PINK, "^", ":"),
    BOTH: (mechanism.BLUE, mechanism.BLUE, "o", "-"),
}


def _facts(record: dict) -> dict:
    """What a record says about its generator's recipe and where it was trained."""
    origin, recipe = (record["metrics"]["generator_training"] or {}).get("provenance", record["provenance"]), cell_of(record["cell"]).generator
    facts = {"hardware": f"{origin['device']}, {show.count(origin['threads'], 'thread')}, {origin['precision']}"}
    if recipe:
        facts |= {"batch": recipe.batch, "seed": recipe.seed}
        facts |= {"models_per_step": recipe.models_per_step} if recipe.steps else {}
    return facts | ({"how": OFFICIAL} if recipe and grids.is_official(recipe) else {})


def _on_validation(records: list[dict]) -> pd.DataFrame:
    """CHOICE's columns of each point that was measured on validation images, indexed by the record of its test images."""
    twins = [record["cell"] | {"table": "accuracy", "first_seed": FIRST_SEED} for record in records]
    rows = mechanism.frame([record | {"cell": cell} for record, cell in zip(records, twins)])
    return rows.set_index("record")[list(CHOICE)].rename(columns=CHOICE)


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a base model alone, and a row a generator of each recipe and length.

    how: one of HOW.  model_images: images times perturbed models of training, those of the class patterns that it imitates
    included; training_minutes likewise.  Accuracies in per cent, RP in points; validation_*: of validation images.
    published_*: for ReleaseMap and base recipe `release` only.
    """
    records = list(records)
    held_out = [record for record in records if record["cell"]["table"] == "validation"]
    records = [record for record in records if record["cell"]["table"] != "validation"]
    facts = {digest_of(record["cell"]): _facts(record) for record in records}
    rows = mechanism.frame(records)
    rows = rows.assign(how=rows["how"].replace(OURS), model_images=(1e6 * rows["model_images_million"].astype(float)).round())
    rows = [row | facts[row["record"]] for row in rows.to_dict("records")]  # in the order of settings of the mechanism page
    keys = list(dict.fromkeys(tuple(row[name] for name in tables.SETTING) for row in rows))
    names = ["none", *generators.LABELS.values()]

    def order(row: dict) -> tuple:
        place = keys.index(tuple(row[name] for name in tables.SETTING)), names.index(row["generator"]), HOW.index(row["how"])
        return (*place, row["imitation_steps"], row["steps"], row["record"])

    found = pd.DataFrame(sorted(rows, key=order), columns=[name for name in COLUMNS if name not in CHOICE.values()])
    return found.join(_on_validation(held_out), on="record")[COLUMNS]


def _groups(rows: pd.DataFrame):
    """((setting, generator), rows of that generator) for each generator whose base model alone is measured too."""
    return rows[(rows["how"] != ALONE) & rows["PA"].notna()].groupby(GROUP, sort=False)


def _title(key: tuple) -> str:
    dataset, model, recipe, epochs, law, rate, *_, generator = key
    return f"{dataset} {model} with {generator}, base recipe {recipe} ({epochs} epochs), {law}, BER {rate:g} %"


def _point(row: pd.Series) -> str:
    """A row's recipe and length in words."""
    lengths = [f"{row[name]:,.0f}" for name in ("imitation_steps", "steps") if row[name]]
    return f"{row['how'].removeprefix('ours, ')} ({' + '.join(lengths)} steps)"


# ------------------------------------------------------------------------------------------------------------- pictures


def curve(key: tuple, some: pd.DataFrame, x: str) -> figures.Picture:
    """PA(NF) against x ("model_images" or "training_minutes"), a line a recipe, with the base model alone and the paper's
    PA(NF) as level lines.  Bars are the standard error of the recovery over error patterns."""
    alone, printed = some["PA"].iloc[0], some["published_PA_NF"].iloc[0]
    figure, (axis,) = figures._figure(height=4.2)
    number, words, said = ("{:,.0f}", "model-images", []) if x == "model_images" else ("{:,.2g}", "minutes", [])
    for how, (edge, face, mark, line) in LOOKS.items():
        part = some[some["how"] == how].sort_values(["imitation_steps", "steps"]).dropna(subset=[x])
        if len(part):
            style = {"color": edge, "markerfacecolor": face, "marker": mark, "linestyle": line, "capsize": 2, "markersize": 7}
            axis.errorbar(part[x], part["PA_NF"], yerr=part["RP_error"].fillna(0), label=how, **style)
            numbers = (f"{y:.1f} % at {number.format(at)}" for at, y in zip(part[x], part["PA_NF"]))
            said.append(f"{how}: {', '.join(numbers)}")
    axis.axhline(alone, color=mechanism.GREY, linestyle="--", linewidth=1, label=f"base model alone, {alone:.1f} %")
    if not np.isnan(printed):
        axis.axhline(printed, color=mechanism.ORANGE, linestyle="-.", linewidth=1, label=f"paper, PA(NF), {printed:g} %")
        said.append(f"the paper {printed:g} %")
    if x == "model_images" and key[0] in LIKE_CIFAR10:
        said.append(f"official recipe, full length: {FULL_IMAGES / 1e6:.1f} million")
        axis.axvline(FULL_IMAGES, color=mechanism.ORANGE, linestyle=":", linewidth=1.5, label=said[-1])
    axis.set(xscale="log", xlabel=f"{words} of training (log scale)", ylabel="PA(NF) (%)")
    axis.xaxis.set_minor_formatter("")
    axis.xaxis.set_major_formatter(EngFormatter(sep="") if x == "model_images" else StrMethodFormatter("{x:g}"))
    if np.ptp(np.log10(axis.get_xlim())) < 2:
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_title(_title(key).replace(", base", "\nbase", 1), fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    text = f"Accuracy under errors against {words} of training, {_title(key)}. Base model alone {alone:.1f} %"
    return figures.Picture(figure, f"{text}; {'; '.join(said)}.")


def curves(rows: pd.DataFrame) -> HTML:
    """`curve` against model-images of each setting and generator."""
    return show.gallery([curve(key, some, "model_images") for key, some in _groups(rows)])


def minutes(rows: pd.DataFrame) -> HTML:
    """`curve` against minutes where the records name one device for all; otherwise which devices they name."""
    found = []
    for key, some in _groups(rows):
        devices = some["hardware"].unique()
        if len(devices) == 1:
            found += [HTML(f"<p>Trained on {devices[0]}.</p>"), curve(key, some, "training_minutes")]
        else:
            said = f"several devices made these points, so minutes are not drawn: {'; '.join(devices)}"
            found.append(HTML(f"<p>{_title(key)}: {said}.</p>"))
    return show.gallery(found)


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table that can be downloaded, without base models that no generator was trained for."""
    trained = rows.loc[rows["how"] != ALONE, show.GROUP].drop_duplicates()
    rows = rows.merge(trained, on=show.GROUP) if len(trained) else rows
    shown = rows.assign(training_minutes=60 * rows["training_minutes"])  # in seconds: some are short
    shown = show.named(shown, SHOWN)
    return show.table(shown.dropna(axis=1, how="all") if len(shown) else shown, "cost")


# ------------------------------------------------------------------------------------------------------------ sentences


def _sure(row: pd.Series) -> bool:
    return row["validation_RP"] > mechanism.SURE * np.nan_to_num(row["validation_RP_error"])


def _best(some: pd.DataFrame) -> tuple[pd.Series | None, bool]:
    """The best official point, None where none is measured; whether its recovery is sure.  On validation images."""
    official = some[(some["how"] == OFFICIAL) & some["validation_PA_NF"].notna()]
    best = official.loc[official["validation_PA_NF"].idxmax()] if len(official) else None
    return best, best is not None and _sure(best)


def _cheapest(some: pd.DataFrame, accuracy: float = 0.0) -> pd.Series | None:
    """Of our points with a sure recovery that reach `accuracy` (per cent, under errors), both on validation images: that with
    the fewest model-images."""
    own = some[(some["how"] != OFFICIAL) & (some["validation_PA_NF"] >= accuracy)]
    own = own.sort_values(["model_images", "training_minutes", "record"])
    return next((row for _, row in own.iterrows() if _sure(row)), None)


def _brought(row: pd.Series) -> str:
    """What a row brings on test images, and for how much training, in words."""
    return f"{row['PA_NF']:.1f} % (clean {row['CA_NF']:.1f} %) with {row['model_images']:,.0f} model-images"


def _fewer(images: float, row: pd.Series) -> str:
    """How many times fewer than `images` the model-images of a row are, in words."""
    times = images / row["model_images"]
    return f"{times:,.{0 if times >= 10 else 1}f} times fewer" if times > 1 else "not fewer"


def _told(row: pd.Series, top: pd.Series | None) -> str:
    """Which point a row is and what it brings, in words; of `top`, which was told before, that it is the same."""
    return "that same one" if top is not None and row["record"] == top["record"] else f"{_point(row)}, {_brought(row)}"


def _beside_official(some: pd.DataFrame, top: pd.Series | None) -> str:
    """The best official point that is measured, and our cheapest one that is as good.  top: our best, told before."""
    best, sure = _best(some)
    if best is None:
        return " The official recipe is not measured here."
    official = some[some["how"] == OFFICIAL]
    lengths = show.listed(f"{int(count):,}" for count in official.loc[official["validation_PA_NF"].notna(), "steps"])
    many = official["validation_PA_NF"].notna().sum() > 1
    chosen = f"best on validation images of {lengths} steps, with {int(best['steps']):,}" if many else f"measured on validation images with {lengths} steps only"
    text = f" The official recipe, {chosen}: {_brought(best)}."
    for row in official[official["validation_PA_NF"].isna()].itertuples():
        text += f" With {int(row.steps):,} steps, not measured on validation images, {row.PA_NF:.1f} %."
    if not sure:
        text += " On validation images that run recovers nothing clear, so there is nothing yet that ours could be compared with."
        first = _cheapest(some)
        return text if first is None else f"{text} Our cheapest sure recovery: {_told(first, top)}."
    if (ours := _cheapest(some, best["validation_PA_NF"])) is None:
        return f"{text} None of ours is as good."
    text += f" Our cheapest point that is at least as good under errors: {_told(ours, top)}, "
    return f"{text}**{_fewer(best['model_images'], ours)}**."


def _beside_paper(some: pd.DataFrame, top: pd.Series | None) -> str:
    """The printed number of this generator, and our cheapest point that reaches it; the recoveries first, for base models differ."""
    printed, before = some[["published_PA_NF", "published_PA"]].iloc[0]
    if np.isnan(printed):
        return ""
    text = f" The paper prints {printed:g} % for its recipe: {FULL.steps:,} steps, {FULL_IMAGES / 1e6:.1f} M model-images."
    if (ours := _cheapest(some, printed)) is None:
        return f"{text} No point of ours reaches that."
    text += f" Our cheapest point that reaches that: {_told(ours, top)}. But the base models differ: alone theirs is right on "
    text += f"{before:g} % and ours on {ours['PA']:.1f} %. So the recovery is {printed - before:+.1f} points there and {ours['RP']:+.1f} here"
    return text + (", which is less." if ours["RP"] < printed - before else f", with model-images {_fewer(FULL_IMAGES, ours)}.")


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, and what came out for each setting and generator."""
    groups = list(_groups(rows))
    shown = pd.concat([rows[:0], *(some for _, some in groups)])
    lines = [show.progress(shown.drop(columns="steps"), profile, "cost")]  # the lengths stand below
    for key, some in groups:
        text = f"**{_title(key)}.** Alone the base model is right on {some['PA'].iloc[0]:.1f} % of the images under errors."
        if some["validation_PA_NF"].isna().all():
            lines.append(f"{text} No point is measured on validation images, so none is chosen.")
            continue
        top = None
        for _, top in some[some["how"] != OFFICIAL].nlargest(1, "validation_PA_NF").iterrows():
            text += f" The best of ours: {_point(top)}, {_brought(top)}."
        lines.append(text + _beside_official(some, top) + _beside_paper(some, top))
    return show.prose("\n\n".join(lines))


def _verdict(key: tuple, some: pd.DataFrame) -> str:
    """Whether GOAL is reached against the best official point that is measured."""
    text = f"{_title(key)}: as good with {GOAL} times fewer model-images than the best official run here? "
    best, sure = _best(some)
    if not sure:
        return f"{text}Cannot be told: no official run {'is measured' if best is None else 'has a sure recovery'} here."
    if (ours := _cheapest(some, best["validation_PA_NF"])) is None:
        return f"{text}**No**: none of ours is as good."
    reached = best["model_images"] >= GOAL * ours["model_images"]
    text += f"**{'Yes' if reached else 'No'}**: {_point(ours)} takes {ours['model_images']:,.0f} instead of "
    return f"{text}{best['model_images']:,.0f}, {_fewer(best['model_images'], ours)}."


def meaning(rows: pd.DataFrame) -> Markdown:
    """Verdicts, and what the page does not show."""
    if not (groups := list(_groups(rows))):
        return show.prose("Nothing is measured yet that could tell.")
    lines = [_verdict(key, some) for key, some in groups]
    if missing := sum(not (some["steps"][some["how"] == OFFICIAL] >= FULL.steps).any() for _, some in groups):
        where = "" if missing == len(groups) else f" for {missing} of {show.count(len(groups), 'curve')}"
        said = f"Not shown: the official recipe at its full length of {FULL.steps:,} steps was not run here{where}."
        lines.append(f"{said} A short run says what little training buys, not where the recipe ends.")
    lines += [
        f"Each point is one training run ({show.several(rows['seed'].dropna().astype(int), 'training seed')}); points that lie "
        "close may change places with another seed. Nothing was chosen on the test images: each run goes to its end, and which "
        "point is best, or the cheapest that is good enough, is read off validation images, which were cut from the training "
        "images, under error patterns of their own. The accuracies quoted are those of the test images.",
        "Model-images leave out the passes of the undamaged base model and of the generator. Minutes count everything. They "
        "are those of this study's code for both recipes; other work on the same machine lengthens them.",
    ]
    return show.prose("\n".join(f"* {line}" for line in lines))
