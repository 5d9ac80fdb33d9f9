"""The page "seeds": base models and generators trained again with other seeds, and what a difference between two must be."""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown
from scipy import stats

from nflib import figures, show, tables
from nflib.cells import digest_of
from nflib.show import GROUP

CERTAINTY = 0.95
COLOURS = sns.color_palette("colorblind", 8)
ALONE, AGAIN, BOTH = "base model", "generator", "base model, with a generator of its own"
COLUMNS = [*GROUP, "patterns", "images", "generator", "imitation_steps", "steps", "base_seed", "generator_seed"]
COLUMNS += ["clean", "accuracy", "std", "worst", "gain", "gain_error", "record"]
SHOWN = {
    **{name: name.replace("_", " ") for name in GROUP[:-1]},
    "ber_percent": "BER %",
    "generator": "generator",
    "base_seed": "seed of the base model",
    "generator_seed": "of the generator",
    "clean": "without errors",
    "accuracy": "under errors",
    "std": "± std over chips",
    "worst": "worst chip",
    "gain": "recovery",
    "gain_error": "± error",
}


def frame(records: Iterable[dict]) -> pd.DataFrame:
    """A row a training: of a base model alone (generator "none"), or of a generator on one of them.

    clean, accuracy: without and under errors, the mean over chips; std, worst: over chips; all in per cent.  gain, gain_error:
    the mean of the paired differences to the same base model alone on the same chips, and its standard error, in points.
    """
    records = [record for record in records if record["cell"]["table"] == "accuracy"]
    seeds = {}
    for record in records:
        base, generator = record["cell"]["base"]["recipe"], record["cell"]["generator"]
        seeds[digest_of(record["cell"])] = base["seed"], generator["seed"] if generator else np.nan
    rows, alone = tables.recoveries(records), lambda rows: rows["generator"] == "none"
    rows["base_seed"] = [seeds[record][0] for record in rows["record"]]
    rows["generator_seed"] = [seeds[record][1] for record in rows["record"]]
    for name, measured in (("clean", "CA"), ("accuracy", "PA"), ("std", "PA_std"), ("worst", "PA_worst")):
        rows[name] = rows[measured].where(alone(rows), rows[measured.replace("A", "A_NF", 1)])
    rows[["gain", "gain_error"]] = rows[["RP", "RP_error"]].where(~alone(rows))
    systems = [*GROUP, "generator", "imitation_steps", "steps"]
    rows["_system"] = pd.factorize(rows.sort_index()[systems].apply(tuple, axis=1))[0] if len(rows) else 0
    return rows.sort_values(["_system", "base_seed", "generator_seed"], kind="stable")[COLUMNS].reset_index(drop=True)


def spreads(rows: pd.DataFrame) -> pd.DataFrame:
    """What another seed moves: a row for each system and `varied`, where at least two trainings were measured.

    varied: the "base model", alone; the "generator", on the base model of seed 0; or the base model, with a generator of its
    own, of seed 0.  low, mean, high, spread: accuracy under errors, the mean over chips, over trainings (spread: standard
    deviation, ddof 1); gain_*: the same of the recovery; chips: the mean of the trainings' standard deviation over chips.
    """
    found = []
    for key, some in rows.groupby([*GROUP, "generator", "imitation_steps", "steps"], sort=False):
        first = {ALONE: some} if key[len(GROUP)] == "none" else {AGAIN: some[some["base_seed"] == 0], BOTH: some[some["generator_seed"] == 0]}
        for varied, here in first.items():
            if len(here) > 1:
                values = {"varied": varied, "trainings": len(here), "chips": here["std"].mean()}
                for name, column in (("", "accuracy"), ("gain_", "gain")):
                    low, mean, high = here[column].min(), here[column].mean(), here[column].max()
                    values |= {f"{name}low": low, f"{name}mean": mean, f"{name}high": high, f"{name}spread": here[column].std(ddof=1)}
                found.append(dict(zip([*GROUP, "generator", "imitation_steps", "steps"], key)) | values)
    columns = [*GROUP, "generator", "imitation_steps", "steps", "varied", "trainings", "chips"]
    columns += [f"{name}{value}" for name in ("", "gain_") for value in ("low", "mean", "high", "spread")]
    return pd.DataFrame(found, columns=columns)


def needed(spread: float, trainings: int) -> float:
    """The difference in points between two systems, each trained once, that the luck of training passes in one case of twenty.

    spread: standard deviation over `trainings` trainings, ddof 1.  Few trainings tell the spread badly: Student's t allows for it.
    """
    return float(stats.t.ppf((1 + CERTAINTY) / 2, trainings - 1) * np.sqrt(2) * spread)


def picture(key: tuple, some: pd.DataFrame) -> figures.Picture:
    """Accuracy of each training: filled under errors, with the standard deviation over chips; hollow without errors."""
    figure, (axis,) = figures._figure(height=1.3 + 0.24 * len(some))
    systems, said, names = list(dict.fromkeys(some["generator"])), [], []
    for y, row in enumerate(some.itertuples()):
        colour = COLOURS[systems.index(row.generator)]
        axis.errorbar(row.accuracy, y, xerr=row.std, fmt="o", color=colour, markersize=5, linewidth=1)
        axis.plot(row.clean, y, "o", color="white", markeredgecolor=colour, markersize=5)
        front = "alone" if row.generator == "none" else f"{row.generator}, seed {row.generator_seed:.0f}"
        names.append(f"{front}, base model {row.base_seed}")
        said.append(f"{names[-1]}: {row.accuracy:.1f} % (without errors {row.clean:.1f} %)")
    axis.plot([], [], "o", color="0.3", label="under errors, ± standard deviation over chips")
    axis.plot([], [], "o", color="white", markeredgecolor="0.3", label="without errors")
    axis.set(xlabel="accuracy (%)", xlim=(0, 101), ylim=(len(some) - 0.5, -0.5))
    axis.set_yticks(range(len(some)), names)
    axis.set_title(show.title(key), fontsize=9)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figures.Picture(figure, f"Trainings with other seeds, {show.title(key)}. {'; '.join(said)}.")


def pictures(rows: pd.DataFrame) -> HTML:
    """`picture` of each setting with at least two trainings of one system."""
    several = {tuple(row[name] for name in GROUP) for row in spreads(rows).to_dict("records")}
    return show.gallery([picture(key, some) for key, some in rows.groupby(GROUP, sort=False) if key in several])


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table that can be downloaded."""
    return show.table(rows[list(SHOWN)].rename(columns=SHOWN), "seeds")


# ------------------------------------------------------------------------------------------------------------ sentences


def _said(row: dict) -> str:
    """One of `spreads` in a sentence."""
    values = f"{row['low']:.1f} to {row['high']:.1f} %, standard deviation {row['spread']:.1f} points over {row['trainings']} trainings, {row['chips']:.1f} over chips"
    if row["varied"] == ALONE:
        return f"**{row['base_model']} alone, trained again**: {values}."
    gain = f"Recovery {row['gain_low']:+.1f} to {row['gain_high']:+.1f} points (standard deviation {row['gain_spread']:.1f})."
    what = f"{row['generator']} trained again on one {row['base_model']}" if row["varied"] == AGAIN else f"{row['base_model']} trained again, with a {row['generator']} of its own"
    return f"**{what}**: {values}. {gain}"


def _against_print(row: dict) -> str:
    """How many of the paper's pairs of generators at this setting are closer than two trainings of one generator may be."""
    known = tables.printed(tuple(row[name] for name in GROUP))
    pairs = [abs(a - b) for a, b in combinations(known.values(), 2)]
    if row["varied"] != AGAIN or not pairs:
        return ""
    least = needed(row["spread"], row["trainings"])
    return (
        f" Two generators that are each trained once must be {least:.1f} points apart before chance alone is unlikely (5 %, by Student's t, "
        f"from {row['trainings']} trainings). The paper prints {len(known)} generators here, each trained once: "
        f"{sum(gap < least for gap in pairs)} of their {len(pairs)} pairs are closer."
    )


def answer(rows: pd.DataFrame) -> str | None:
    """In two sentences how far another seed moves accuracy under errors, for one base model; None without two trainings."""
    found = spreads(rows)
    again = found[found["varied"] == AGAIN]
    if again.empty:
        return None
    row, alone = again.iloc[-1], found[found["varied"] == ALONE]
    text = (
        f"{row['generator']} trained {row['trainings']} times for one {row['base_model']} gives {row['low']:.1f} to {row['high']:.1f} % under errors, a standard "
        f"deviation of {row['spread']:.1f} points; over chips it is {row['chips']:.1f}."
    )
    if len(alone):
        row = alone.iloc[-1]
        text += f" The base model itself, trained {row['trainings']} times, keeps {row['low']:.1f} to {row['high']:.1f} % ({row['chips']:.1f} over chips)."
    return text


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, and what another seed moves."""
    lines = [show.progress(rows, profile, "seeds")]
    for key, some in spreads(rows).groupby(GROUP, sort=False):
        lines += [f"{show.title(key)}:", "\n".join(f"* {_said(row)}{_against_print(row)}" for row in some.to_dict("records"))]
    return show.prose("\n\n".join(lines))
