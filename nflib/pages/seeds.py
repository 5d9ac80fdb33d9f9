"""The page "seeds": base models and generators trained again with other seeds, and what a difference between two must be."""

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from scipy import stats

from nflib import figures, report, show, tables
from nflib.cells import digest_of
from nflib.show import GROUP

CERTAINTY = 0.95
ALONE, AGAIN, BOTH = "base model", "generator", "base model, with a generator of its own"
SYSTEM = [*GROUP, "generator", "imitation_steps", "steps"]
COLUMNS = [*GROUP, "patterns", "images", "generator", "imitation_steps", "steps", "base_seed", "generator_seed"]
COLUMNS += ["clean", "accuracy", "std", "worst", "gain", "gain_error", "record"]
SHOWN = {
    "generator": "generator",
    "base_seed": "seed of the base model",
    "generator_seed": "of the generator",
    "accuracy": "under errors",
    "std": "± std over chips",
    "gain": "recovery",
    "gain_error": "± error",
    "worst": "worst chip",
    "clean": "without errors",
    **{name: report.SHOWN[name] for name in GROUP},
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
    rows["_system"] = rows.groupby(SYSTEM, sort=False).ngroup()
    rows = rows.rename(columns={"RP": "gain", "RP_error": "gain_error"})
    return rows.sort_values(["_system", "base_seed", "generator_seed"], kind="stable")[COLUMNS].reset_index(drop=True)


def spreads(rows: pd.DataFrame) -> pd.DataFrame:
    """What another seed moves: a row for each system and `varied`, where at least two trainings were measured.

    varied: the "base model", alone; the "generator", on the base model of seed 0; or the base model, with a generator of its
    own, of seed 0.  low, high, spread: accuracy under errors, the mean over chips, over trainings (spread: standard
    deviation, ddof 1); gain_*: the same of the recovery, where every training has one; chips: the mean of the trainings'
    standard deviation over chips.
    """
    found = []
    for key, some in rows.groupby(SYSTEM, sort=False):
        first = {ALONE: some} if key[len(GROUP)] == "none" else {AGAIN: some[some["base_seed"] == 0], BOTH: some[some["generator_seed"] == 0]}
        for varied, here in first.items():
            if len(here) > 1:
                values = {"varied": varied, "trainings": len(here), "chips": here["std"].mean()}
                for name, column in (("", "accuracy"), ("gain_", "gain")):
                    known = here[column] if here[column].notna().all() else here[column].iloc[:0]
                    values |= {f"{name}low": known.min(), f"{name}high": known.max(), f"{name}spread": known.std(ddof=1)}
                found.append(dict(zip(SYSTEM, key)) | values)
    columns = [*SYSTEM, "varied", "trainings", "chips"]
    columns += [f"{name}{value}" for name in ("", "gain_") for value in ("low", "high", "spread")]
    return pd.DataFrame(found, columns=columns)


def needed(spread: float, trainings: int) -> float:
    """The difference in points between two systems, each trained once, that the luck of training passes in one case of twenty.

    spread: standard deviation over `trainings` trainings, ddof 1.  Few trainings tell the spread badly: Student's t allows for it.
    """
    return float(stats.t.ppf((1 + CERTAINTY) / 2, trainings - 1) * np.sqrt(2) * spread)


def picture(key: tuple, some: pd.DataFrame) -> figures.Picture:
    """Accuracy of each training: filled under errors, with the standard deviation over chips; hollow without errors."""
    figure, (axis,) = figures._figure(height=1.3 + 0.24 * len(some))
    colours, said, names = figures.colours(some["generator"]), [], []
    for y, row in enumerate(some.itertuples()):
        figures.under_errors_and_without(axis, row, y, colours[row.generator])
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


def _trained_again(rows: pd.DataFrame) -> list[tuple[tuple, pd.DataFrame]]:
    """(setting, rows) of each setting with at least two trainings of one system."""
    several = {tuple(row[name] for name in GROUP) for row in spreads(rows).to_dict("records")}
    return [(key, some) for key, some in rows.groupby(GROUP, sort=False) if key in several]


def pictures(rows: pd.DataFrame) -> HTML:
    """`picture` of each of `_trained_again`."""
    return show.gallery([picture(key, some) for key, some in _trained_again(rows)])


def table(rows: pd.DataFrame) -> HTML:
    """The rows of `_trained_again` as a table that can be downloaded: one training alone says nothing about luck."""
    shown = pd.concat([rows[:0], *(some for _, some in _trained_again(rows))])
    return show.table(shown[list(SHOWN)].rename(columns=SHOWN), "seeds")


# ------------------------------------------------------------------------------------------------------------ sentences


def _said(row: dict) -> str:
    """One of `spreads` in a sentence."""
    what = {
        ALONE: f"{row['base_model']} alone, trained again",
        AGAIN: f"{row['generator']} trained again on one {row['base_model']}",
        BOTH: f"{row['base_model']} trained again, with a {row['generator']} of its own",
    }[row["varied"]]
    text = (
        f"**{what}**: {row['low']:.1f} to {row['high']:.1f} %, standard deviation {row['spread']:.1f} points over {row['trainings']} trainings; "
        f"over the chips of one training {row['chips']:.1f}."
    )
    if np.isnan(row["gain_spread"]):
        return text
    return f"{text} Recovery {row['gain_low']:+.1f} to {row['gain_high']:+.1f} points (standard deviation over trainings {row['gain_spread']:.1f})."


def _against_print(key: tuple, found: pd.DataFrame) -> list[str]:
    """How many of the paper's pairs of generators of a setting are closer than two trainings of one of ours may be."""
    again, known = found[found["varied"] == AGAIN], tables.printed(key)
    if again.empty or not known:
        return []
    least, name, count = max((needed(row.spread, row.trainings), row.generator, row.trainings) for row in again.itertuples())
    gaps = [abs(a - b) for a, b in combinations(known.values(), 2)]
    return [
        f"* **Beside the paper.** If its generators vary with training as our {name} does, two of them, each trained once, must be {least:.1f} points "
        f"apart before chance is unlikely (5 % for a pair, by Student's t, from {count} trainings). Of the {len(gaps)} pairs of "
        f"generators that it prints here, {sum(gap < least for gap in gaps)} are closer."
    ]


def answer(rows: pd.DataFrame) -> str | None:
    """In three sentences how far another seed moves accuracy under errors, for one base model; None without two trainings."""
    found = spreads(rows)
    again = found[found["varied"] == AGAIN]
    if again.empty:
        return None
    row = again.iloc[-1]
    text = (
        f"{row['generator']} trained {row['trainings']} times for one {row['base_model']} gives {row['low']:.1f} to {row['high']:.1f} % under errors: "
        f"a difference of up to {needed(row['spread'], row['trainings']):.1f} points between two generators may be luck (95 %)."
    )
    alone = found[(found["varied"] == ALONE) & (found[GROUP] == row[GROUP]).all(axis=1)]
    for row in alone.to_dict("records"):
        return f"{text} {row['base_model']} itself, trained {row['trainings']} times, keeps {row['low']:.1f} to {row['high']:.1f} %."
    return f"{text} The base model itself has not been trained again yet."


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, and what another seed moves."""
    found = spreads(rows)
    again = rows.merge(found[SYSTEM].drop_duplicates(), on=SYSTEM) if len(found) else rows  # what was trained once is other pages'
    lines = [text for text in (show.progress(again, profile, "seeds"), show.by_imitation(again)) if text]
    for key, some in found.groupby(GROUP, sort=False):
        said = [f"* {_said(row)}" for row in some.to_dict("records")]
        said += [] if (some["varied"] == ALONE).any() else ["* The base model has not been trained again yet."]
        lines += [f"{show.title(key)}:", "\n".join([*said, *_against_print(key, some)])]
    return show.prose("\n\n".join(lines))
