"""Page "mechanism": how a change of the image can make up for errors in every layer.  The hypothesis that it tests: the
generator tells the class and adds a pattern of that class which even the damaged model recognises."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import data, figures, generators, models, report, show, tables
from nflib.cells import digest_of
from nflib.show import GROUP
from nflib.study import macs

SURE = 2.0  # standard errors beyond which a difference is called one
ALONE, ONE, TOLD, RELAYED, PLAIN, IMITATED, BOTH, ENCODER = HOW = (
    "base model alone",
    "one pattern for all images",
    "a pattern a class, told the label",
    "a pattern a class, told by an encoder",
    "generator, Eq. 3 from the start",
    "generator, imitation only",
    "generator, imitation, then Eq. 3",
    "encoder alone, no base model",
)
TRAINED = (PLAIN, IMITATED, BOTH)
COLUMNS = [*tables.SETTING, "generator", "how", "imitation_steps", "steps", "model_images_million", "training_minutes", "macs_million"]
COLUMNS += [*tables.MEASURED, "published_PA", "published_PA_NF", "trained_on", "record"]
SHOWN = {"dataset": "data set", "base_model": "base model", "how": "what stands before it"} | report.SHOWN | {"macs_million": "MACs (M)"}
SHOWN |= {"model_images_million": "model-images (thousands)", "training_minutes": "training (min)", "trained_on": "trained on"}
ORANGE, BLUE, GREEN, PINK, GREY = "#d55e00", "#0173b2", "#029e73", "#cc78bc", "#767676"
ENCODERS = [models.label(name) for name in models.ENCODERS]
ENCODER_OF = {"DeConvL": "ConvL encoder", "DeConvS": "ConvS encoder"}  # the same layers


def _how(row: dict) -> str:
    if row["generator"] == "none":
        return ENCODER if row["base_model"] in ENCODERS else ALONE
    if isinstance(row["teller"], str):
        return RELAYED
    known = {generators.label(generators.UNIVERSAL): ONE, generators.label(generators.CLASS_PATTERNS): TOLD}
    imitated = BOTH if row["steps"] else IMITATED
    return known.get(row["generator"], imitated if row["imitation_steps"] else PLAIN)


def _cost(record: dict) -> dict:
    """What a record's generator took to train, its teacher included: millions of model-images, minutes, and on which device;
    MACs of an image."""
    cell, training = record["cell"], record["metrics"]["generator_training"]
    size, teller = data.image_size(cell["base"]["dataset"]), cell.get("teller")
    needed = sum(macs("base", base["model"], base["width"], size) for base in (cell["base"], teller) if base)
    if training is None:
        return {"macs_million": needed / 1e6}
    parts = [training, training["teacher"]] if "teacher" in training else [training]
    parts += [{"model_images": 0, **record["metrics"]["teller_training"]}] if teller else []
    return {
        "model_images_million": sum(part.get("model_images", np.nan) for part in parts) / 1e6,
        "training_minutes": sum(part.get("seconds", np.nan) for part in parts) / 60,
        "trained_on": training.get("provenance", record["provenance"])["device"],
        "macs_million": (needed + macs("generator", cell["generator"]["name"], cell["generator"]["width"], size)) / 1e6,
    }


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a base model alone, behind each kind of perturbation, and an encoder alone.

    how: one of HOW.  model_images_million: images times perturbed models of training, the teacher's included;
    training_minutes likewise, on the device trained_on; macs_million: multiply-accumulates of one image, generator and base model together.
    Accuracies in per cent, RP in points.  published_*: for ReleaseMap and base recipe `release` only.
    """
    records = list(records)
    cost = {digest_of(record["cell"]): _cost(record) for record in records}
    rows = []
    for row in tables.recoveries(records).to_dict("records"):
        row |= {"how": _how(row), **cost[row["record"]]} | ({} if tables.comparable(row) else {"published_PA": np.nan, "published_PA_NF": np.nan})
        if row["how"] == RELAYED:
            row["generator"] = f"{row['generator']}, {row['teller']}"
        rows.append(row)
    names = [*models.LABELS.values(), *models.EXTRA_LABELS.values()]
    told = generators.label(generators.CLASS_PATTERNS)
    kinds = ["none", *generators.CONTROLS.values(), *(f"{told}, {name}" for name in ENCODERS), *generators.LABELS.values()]

    def order(row: dict) -> tuple:
        place = (HOW.index(row["how"]) == HOW.index(ENCODER), names.index(row["base_model"]))
        return (row["dataset"], row["error_model"], -row["ber_percent"], *place, row["base_recipe"], row["base_epochs"],
                min(HOW.index(row["how"]), HOW.index(PLAIN)), kinds.index(row["generator"]), row["imitation_steps"], row["steps"], row["record"])  # fmt: skip

    return pd.DataFrame(sorted(rows, key=order), columns=COLUMNS)


def _groups(rows: pd.DataFrame):
    """(setting, rows) of each base model that something was put before."""
    for key, some in rows[rows["how"] != ENCODER].groupby(GROUP, sort=False):
        if (some["generator"] != "none").any() and some["PA"].notna().any():
            yield key, some


def _encoders(rows: pd.DataFrame, key: tuple) -> pd.DataFrame:
    """The encoders alone on the data set of a group, indexed by label; of several the one that was trained longest."""
    found = rows[(rows["how"] == ENCODER) & (rows["dataset"] == key[0])].sort_values("base_epochs", kind="stable")
    return found.drop_duplicates("base_model", keep="last").set_index("base_model")


def front(row: dict) -> str:
    """What stands in front of the base model of a row, with its name."""
    encoder = row["generator"].rpartition(", ")[2]
    return row["how"].replace("generator", row["generator"], 1).replace("an encoder", f"the {encoder}")


def encoder_of(generator: str) -> str:
    return ENCODER_OF.get(generator, f"{generator} encoder")


def _pairs(best: pd.DataFrame, alone: pd.DataFrame) -> list[tuple[pd.Series, pd.Series]]:
    """(generator's best row, its encoder alone) where both are measured."""
    return [(best.loc[name], alone.loc[encoder_of(name)]) for name in best.index if encoder_of(name) in alone.index]


def clearly(alone: pd.Series, accuracy: float) -> bool:
    """Whether an encoder alone is more accurate than `accuracy` (per cent), by more than SURE standard errors over its test images."""
    return alone["CA"] - accuracy > SURE * np.sqrt(alone["CA"] * (100 - alone["CA"]) / alone["images"])


def _best(some: pd.DataFrame) -> pd.DataFrame:
    """The best row of each of the six generators in a group, indexed by generator."""
    own = some[some["how"].isin(TRAINED)].sort_values("PA_NF")
    return own.drop_duplicates("generator", keep="last").set_index("generator")


# ------------------------------------------------------------------------------------------------------------- pictures


def ladder(key: tuple, some: pd.DataFrame) -> figures.Picture:
    """Accuracy under errors of one base model: alone, behind patterns, behind generators; bars are standard deviations over
    error patterns, hollow diamonds the paper's PA(NF), also of generators that we have not measured."""
    whole, printed, title = some.iloc[0], tables.printed(key), show.title(key)
    names = [ALONE, *(how for how in (ONE, TOLD) if (some["how"] == how).any())]
    names += list(dict.fromkeys(some.loc[some["how"].isin([RELAYED, *TRAINED]), "generator"]))
    names += [name for name in printed if name not in names]
    figure, (axis,) = figures._figure(height=1.4 + 0.34 * len(names))
    axis.axvline(whole["CA"], color=GREY, linestyle="--", linewidth=1, label="clean accuracy CA")
    looks = {PLAIN: (BLUE, "white", -0.24), IMITATED: (PINK, PINK, 0), BOTH: (BLUE, BLUE, 0.24)}
    looks |= {ONE: (GREY, GREY, 0), TOLD: (GREEN, GREEN, 0), RELAYED: (GREEN, "white", 0)}
    axis.errorbar(whole["PA"], 0, xerr=whole["PA_std"], fmt="o", color="black", capsize=2)
    for row in some[some["how"] != ALONE].to_dict("records"):
        edge, face, side = looks[row["how"]]
        y = names.index(row["generator"] if row["generator"] in names else row["how"])
        style = {"fmt": "o", "color": edge, "markerfacecolor": face, "capsize": 2, "markersize": 6}
        axis.errorbar(row["PA_NF"], y + side, xerr=row["PA_NF_std"], **style)
    printed |= {ONE: value for value in some.loc[some["how"] == ONE, "published_PA_NF"].dropna()}
    for name, value in printed.items():
        axis.plot(value, names.index(name), "D", color="none", markeredgecolor=ORANGE, markersize=7)
    for how, (edge, face, _) in looks.items():
        if how in TRAINED and (some["how"] == how).any():
            axis.plot([], [], "o", color=edge, markerfacecolor=face, label=how)
    if printed:
        axis.plot([], [], "D", color="none", markeredgecolor=ORANGE, label="paper, PA(NF)")
    axis.set_yticks(range(len(names)), names)
    axis.set(xlim=(0, 102), ylim=(len(names) - 0.4, -0.6), xlabel="accuracy under errors (%)")
    axis.set_title(title, fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    said = "; ".join(f"{row.generator}, {row.how}: {row.PA_NF:.0f} %" for row in some[some["how"] != ALONE].itertuples())
    return figures.Picture(figure, f"{title}. Alone {whole['PA']:.0f} %; {said}.")


def ladders(rows: pd.DataFrame) -> HTML:
    """`ladder` of each base model."""
    return show.gallery([ladder(key, some) for key, some in _groups(rows)])


def duel(key: tuple, some: pd.DataFrame, alone: pd.DataFrame) -> figures.Picture:
    """Accuracy against the multiply-accumulates that it needs: each encoder alone (squares, without errors), and the
    damaged base model behind class patterns that the encoder tells the class (triangles) and behind whole generators
    (circles: our best; hollow diamonds: the paper's)."""
    best, title = _best(some), show.title(key)
    figure, (axis,) = figures._figure(height=3.6)
    axis.axhline(some["CA"].iloc[0], color=GREY, linestyle="--", linewidth=1)
    relayed = some[some["how"] == RELAYED]
    relayed = relayed.assign(encoder=[name.rpartition(", ")[2] for name in relayed["generator"]])
    for name, row in [*alone.iterrows(), *relayed.set_index("encoder").iterrows()]:
        mark, height = ("s", row["CA"]) if row["how"] == ENCODER else ("^", row["PA_NF"])
        axis.plot(row["macs_million"], height, mark, color=figures.GENERATORS[name.removesuffix(" encoder")], markersize=8)
    for name, row in best.iterrows():
        axis.plot(row["macs_million"], row["PA_NF"], "o", color=figures.GENERATORS[name], markersize=8)
    base, names = some.loc[some["how"] == ALONE, "macs_million"].min(), {label: name for name, label in generators.LABELS.items()}
    for name, value in tables.printed(key).items():
        axis.plot(base + macs("generator", names[name], 1.0, 32) / 1e6, value, "D", color="none", markeredgecolor=figures.GENERATORS[name], markersize=8)
    for name, colour in figures.GENERATORS.items():
        axis.plot([], [], "s", color=colour, label=name)
    marks = {"s": "encoder alone", "^": "encoder tells class patterns", "o": "generator, ours", "D": "generator, paper"}
    for mark, words in marks.items():
        axis.plot([], [], mark, color="none", markeredgecolor="0.3", label=words)
    axis.set(xlabel="multiply-accumulates an image (millions)", ylabel="accuracy (%)", xlim=(0, None))
    axis.set_title(f"{title}\ndashed: the base model without errors", fontsize=9)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    said = "; ".join(f"{name}: {row.CA:.0f} % with {row.macs_million:.0f} M" for name, row in alone.iterrows())
    return figures.Picture(figure, f"Encoders alone against generators with the damaged base model, {title}. Alone: {said}.")


def duels(rows: pd.DataFrame) -> HTML:
    """`duel` of each base model whose data set has encoders."""
    pairs = [(key, some, _encoders(rows, key)) for key, some in _groups(rows)]
    return show.gallery([duel(key, some, alone) for key, some, alone in pairs if len(alone)])


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table that can be downloaded."""
    shown = rows.assign(model_images_million=1000 * rows["model_images_million"].astype(float))
    shown = show.named(shown, SHOWN)
    return show.table(shown.dropna(axis=1, how="all") if len(shown) else shown, "mechanism")


# ------------------------------------------------------------------------------------------------------------ sentences


def _said(key: tuple, some: pd.DataFrame, alone: pd.DataFrame) -> str:
    """What came out for one base model."""
    whole, parts = some.iloc[0], []
    for how, words in ((ONE, "one pattern for all images brings it to"), (TOLD, "a pattern a class, told the label, brings it to")):
        parts += [f"{words} {row.PA_NF:.1f} %" for row in some[some["how"] == how].itertuples()]
    text = f"**{show.title(key)}.** Alone it is right on {whole['PA']:.1f} % of the images under errors, on {whole['CA']:.1f} % without"
    text += ("; " + ", ".join(parts) if parts else "") + "."
    for how in (IMITATED, BOTH):
        plain, other = (some[some["how"] == name].set_index("generator")["PA_NF"] for name in (PLAIN, how))
        gain = (other - plain).dropna()
        if len(gain):
            words = "Imitating class patterns, and nothing else," if how == IMITATED else "Imitation before the same steps of Eq. 3"
            text += (
                f" {words} ends higher than Eq. 3 from the start for {int((gain > 0).sum())} of "
                f"{show.count(len(gain), 'generator')} (by {show.span(gain)} points)."
            )
    relayed, best = some[some["how"] == RELAYED], _best(some)
    for row in relayed.sort_values("PA_NF").tail(1).itertuples():
        text += (
            f" Told the class by the {row.generator.rpartition(', ')[2]} in place of the label, the patterns bring it to "
            f"**{row.PA_NF:.1f} %** (worst chip {row.PA_NF_worst:.1f} %, clean {row.CA_NF:.1f} %)"
        )
        printed = tables.printed(key)
        text += f"; the paper's best generator gives {max(printed.values()):g} % here." if printed else "."
    if len(best):
        top = best.loc[best["PA_NF"].idxmax()]
        text += f" Best of the {show.count(len(best), 'generator')} measured, of six: {top.name}, {whole['PA']:.1f} → {top['PA_NF']:.1f} %, clean {top['CA_NF']:.1f} %"
        text += f" (the paper: {top['published_PA_NF']:g} %)." if not np.isnan(top["published_PA_NF"]) else "."
    for there, here in _pairs(best.tail(1), alone):
        text += (
            f" The encoder of {there.name} alone, as a classifier at nominal voltage, tells {here['CA']:.1f} % with "
            f"{here['macs_million']:.1f} M multiply-accumulates; the whole generator with the damaged base model "
            f"{there['PA_NF']:.1f} % with {there['macs_million']:.1f} M."
        )
    return text


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, and what came out for each base model."""
    lines = [_said(key, some, _encoders(rows, key)) for key, some in _groups(rows)]
    plain = rows.assign(generator=[name.partition(",")[0] for name in rows["generator"]])
    return show.prose("\n\n".join([show.progress(plain, profile, "mechanism"), *lines]))


def meaning(rows: pd.DataFrame) -> Markdown:
    """What follows for the hypothesis, as far as the rows go."""
    verdicts, beaten = [], False
    for key, some in _groups(rows):
        whole, told, one = some.iloc[0], some[some["how"] == TOLD], some[some["how"] == ONE]
        if len(told) and len(one):
            high = told["RP"].iloc[0] > max(one["RP"].iloc[0], 0) + SURE * np.hypot(told["RP_error"].iloc[0], one["RP_error"].iloc[0])
            verdicts.append(
                f"{show.title(key)}: the label and a small picture for each class are "
                + (
                    f"enough for {told['PA_NF'].iloc[0]:.1f} % under errors ({whole['PA']:.1f} % alone, {whole['CA']:.1f} % without "
                    f"errors), where one picture for all gives {one['PA_NF'].iloc[0]:.1f} %. So to tell the class is enough. Whether the paper's own training leads to that is another question: [what generators add](transformed_images.ipynb)."
                    if high
                    else "not better than one picture for all: nothing speaks for the hypothesis here."
                )
            )
        pairs = _pairs(_best(some), _encoders(rows, key))
        if pairs:
            wins = sum(clearly(here, there["PA_NF"]) for there, here in pairs)
            printed = [(there, here) for there, here in pairs if not np.isnan(there["published_PA_NF"])]
            more = sum(clearly(here, there["published_PA_NF"]) for there, here in printed)
            verdicts.append(
                f"{show.title(key)}: for {wins} of {show.count(len(pairs), 'generator')} the encoder alone is more accurate than our "
                "damaged base model behind the whole generator"
                + (f", and for {more} of {len(printed)} than the paper's" if printed else "")
                + "."
            )
            beaten = beaten or wins > 0
    if beaten:
        verdicts.append(
            f"Where the encoder is more accurate (by more than {SURE:g} standard errors over its test images; DeConv generators have the encoders of "
            "Conv ones), a chip that can run the generator without errors needs no base model; what the base model then adds is energy."
        )
    return show.prose("\n".join(f"* {line}" for line in verdicts) or "Nothing is measured yet that could tell.")
