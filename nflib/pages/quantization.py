"""Quantisation: base models with codes of 8 down to 2 bits (Tables 22 to 24, Figures 4, 12 and 13), and the sign slip."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown

from nflib import faults, figures, generators, grids, models, profiles, report, show, tables
from nflib.cells import digest_of

NAME = "quantization"
TRUE, SLIP = faults.LABELS["release_map"], faults.LABELS["release_map_sign_slip"]
WORKS = 5.0  # a width works that loses at most so many percentage points
ORIGINS = ("table22_quant_cifar10", "table23_quant_gtsrb", "table24_quant_imagenet10", "fig04_12_13_quant_bars")
RUN = ["dataset", "base_recipe", "base_model", "base_epochs", "ber_percent", "patterns", "images"]
CHANGES = ["slip_PA", "slip_PA_error", "slip_RP", "slip_RP_error"]
PUBLISHED = [f"published_{metric}" for metric in tables.METRICS]
DIFFERENCES = ["PA_difference", "RP_difference"]
COLUMNS = [*RUN, "error_model", "train_ber_percent", "imitation_steps", "steps", "generator", "bits", *tables.MEASURED, *CHANGES, *PUBLISHED]
COLUMNS += [*DIFFERENCES, "changed_bits_percent", "device", "record"]
ORDER = {
    "base_model": list(models.LABELS.values()),
    "error_model": list(faults.LABELS.values()),
    "generator": ["none", *generators.LABELS.values()],
    "bits": list(grids.WIDTHS),
}
LOOKS = dict(zip(ORDER["generator"], zip(["black", *figures.GENERATORS.values()], "osD^vPX")))  # colour, marker
SHOWN = {"dataset": "data set", "base_model": "base model", "bits": "bits"} | report.SHOWN | {"train_ber_percent": "trained at BER %", "PA_difference": "PA, ours − paper"}
SHOWN |= {"slip_PA": "slip, PA", "slip_PA_error": "± error ", "slip_RP": "slip, RP", "slip_RP_error": "± error  "}
SHOWN |= {"published_CA": "paper CA", "published_CA_NF": "paper CA(NF)"}


def _printed(dataset: str) -> pd.DataFrame:
    """The paper's settings of a data set (a name) as rows in which nothing of ours is measured; below 8 bits the official code slips."""
    rows = [row | {"error_model": TRUE if row["bits"] == 8 else SLIP} for row in tables.printed_rows("|".join(ORIGINS), dataset)]
    return pd.DataFrame(rows).reindex(columns=COLUMNS)


def _key(row: dict, law: str, alone: bool) -> tuple:
    keys = [key for key in tables.KEYS if key != "error_model"] + ([] if alone else ["generator", *tables.TRAINING])
    return law, *(str(row[key]) for key in keys)


def frame(records: Iterable[dict], dataset: str = "") -> pd.DataFrame:
    """A row for each base model, error model and width, alone and with each generator, as `tables.recoveries` gives them.

    slip_PA, slip_RP (on the slip's rows): PA and RP with the sign slip minus those with true two's complement, means over
    the same patterns, and their standard errors, in percentage points.  published_*: Tables 22 to 24, else Figures 4, 12
    and 13; only where the base recipe is release and the error model ReleaseMap, with or without the slip.
    dataset: a data set whose settings in the paper get rows even where ours are missing.
    """
    records = list(records)
    rows = tables.recoveries(records)
    comparable = rows["error_model"].isin([TRUE, SLIP]) & (rows["base_recipe"] == "release")
    rows.loc[~comparable, [*PUBLISHED, *DIFFERENCES]] = np.nan
    rows[CHANGES] = np.nan
    accuracies = {digest_of(record["cell"]): np.array(record["metrics"]["perturbed"]) for record in records}
    lines = rows.to_dict("records")
    chips = {_key(row, row["error_model"], row["generator"] == "none"): accuracies[row["record"]] for row in lines}
    for at, row in enumerate(lines):
        own, alone = ([chips.get(_key(row, law, a)) for law in (SLIP, TRUE)] for a in (False, True))
        for names, parts in ((CHANGES[:2], [*alone]), (CHANGES[2:], [*alone, *own])):
            if row["error_model"] == SLIP and not any(part is None for part in parts):
                change = parts[0] - parts[1] if len(parts) == 2 else (parts[2] - parts[3]) - (parts[0] - parts[1])
                error = change.std(ddof=1) / np.sqrt(len(change)) if len(change) > 1 else np.nan
                rows.loc[at, names] = change.mean(), error
    printed = _printed(dataset)
    key = ["dataset", "base_recipe", "base_model", "error_model", "bits", "generator", "train_ber_percent"]
    ours, theirs = (some.fillna({"train_ber_percent": 0}).set_index(key).index for some in (rows, printed))
    parts = [part for part in (rows[COLUMNS], printed[~theirs.isin(ours)]) if len(part)]
    whole = pd.concat(parts) if parts else rows[COLUMNS]
    by = [*RUN, "error_model", "train_ber_percent", "steps", "generator", "bits", "record"]
    place = {name: {value: at for at, value in enumerate(values)} for name, values in ORDER.items()}
    how = {"key": lambda c: c.map(place[c.name]) if c.name in place else c, "kind": "stable", "ignore_index": True}
    ordered = whole.sort_values(by, na_position="first", **how)
    return ordered.sort_values("record", key=pd.isna, kind="stable", ignore_index=True)  # what is measured first


def narrowest(values: pd.Series, reference: float) -> int | None:
    """The narrowest width that works: it and every wider one in `values` (per cent, by bits) is at most 5 points below
    `reference`; None when not even the widest is."""
    found = None
    for bits, value in values.dropna().sort_index(ascending=False).items():
        if not value >= reference - WORKS:
            break
        found = bits
    return found


def _lines(rows: pd.DataFrame, law: str) -> dict[str, pd.DataFrame]:
    """By generator, rows by bits under a law ("": under any, for clean accuracies); at 8 bits, which know no slip,
    ReleaseMap's stand for the slip's too."""
    same = (rows["error_model"] == TRUE) & (rows["bits"] == 8) & (law == SLIP)
    here = rows[(rows["error_model"] == law) | same | (law == "")]
    return {name: some.groupby("bits").first()[::-1] for name, some in here.groupby("generator", sort=False)}


def _groups(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each base model alone and with its generators of one training: (title, rows)."""
    for _, some in rows.groupby(RUN, sort=False, dropna=False):
        alone, first = some["generator"] == "none", some.iloc[0]
        title = f"{first['dataset']} {first['base_model']}, base recipe {first['base_recipe']}, "
        trained = "paper only" if pd.isna(first["record"]) else f"{first['base_epochs']:g} epochs"
        title += f"BER {first['ber_percent']:g} %, {trained}"
        if alone.all():
            yield title, some
        for rate, _ in some[~alone].groupby("train_ber_percent"):
            yield f"{title}; generators trained at {rate:g} %", some[alone | (some["train_ber_percent"] == rate)]


def _laws(rows: pd.DataFrame) -> list[str]:
    return [law for law in ORDER["error_model"] if law in set(rows["error_model"])]


def curves(rows: pd.DataFrame, title: str) -> figures.Picture:
    """Accuracy against code width (Figures 4, 12, 13): a panel without errors, then one an error model.

    rows: one base model's.  Bars: standard deviation over patterns.  Hollow: the paper's.
    """
    laws, said = _laws(rows), []
    laws = [law for law in laws if rows.loc[rows["error_model"] == law, "bits"].nunique() > 1] or laws  # one width is no curve
    figure, axes = figures._figure(1 + len(laws), height=3.6, sharey=True)
    for axis, law in zip(axes, ["", *laws]):
        for shift, (name, line) in enumerate(_lines(rows, law).items()):
            (colour, marker), metric = LOOKS[name], ("PA" if law else "CA") + ("" if name == "none" else "_NF")
            label, spread = name.replace("none", "no generator"), line[f"{metric}_std"] if law else None
            look = {"fmt": f"-{marker}", "color": colour, "markersize": 4, "linewidth": 1.2, "label": label}
            place = line.index + 0.12 - 0.12 * shift  # side by side, so that bars can be told apart
            axis.errorbar(place, line[metric], yerr=spread, **look)
            axis.plot(place, line[f"published_{metric}"], marker, color="none", markeredgecolor=colour, markersize=8)
            if len(known := line[metric].dropna()):
                ends = [f"{known.iloc[k]:.0f} % at {known.index[k]} bits" for k in (0, -1)]
                said.append(f"{law or 'no errors'}, {label}: {ends[0]}, {ends[1]}")
        axis.set_title((law or "no errors").replace(", ", ",\n"), fontsize=9)
        axis.set(xlabel="code width (bits)", ylim=(0, 102), xlim=(8.5, 1.5), xticks=grids.WIDTHS)
    axes[0].set_ylabel("accuracy (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncol=4, fontsize=9, frameon=False)
    figure.suptitle(title, fontsize=9, **figures.TITLE)
    return figures.Picture(figure, f"Accuracy against code width. {title}. {'; '.join(said) or 'The paper only'}.")


def slip_changes(rows: pd.DataFrame, title: str) -> figures.Picture:
    """What the slip changes in PA and in each generator's RP, by width; bars: two standard errors over patterns."""
    (figure, (axis,)), said = figures._figure(height=3.0), []
    for shift, (name, line) in enumerate(_lines(rows[rows["error_model"] == SLIP], SLIP).items()):
        metric, label = ("slip_PA", "PA, no generator") if name == "none" else ("slip_RP", f"RP with {name}")
        look = {"fmt": f"-{LOOKS[name][1]}", "color": LOOKS[name][0], "markersize": 5, "linewidth": 1.2, "label": label}
        axis.errorbar(line.index - 0.1 * shift, line[metric], yerr=2 * line[f"{metric}_error"], **look)
        said += [f"{label} at {bits} bits {value:+.1f}" for bits, value in line[metric].dropna().items()]
    axis.axhline(0, color="0.4", linewidth=1)
    axis.set(xlabel="code width (bits)", ylabel="slip − true (points)", xlim=(7.5, 1.5), xticks=grids.WIDTHS[1:])
    axis.legend(fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    axis.set_title(title, fontsize=9)
    return figures.Picture(figure, f"What the sign slip changes, in percentage points. {title}. {'; '.join(said)}.")


def pictures(rows: pd.DataFrame, draw=curves) -> HTML:
    """`draw` (`curves` or `slip_changes`) of each base model and training of generators that is measured; of the paper's where none is."""
    groups = [(some, title) for title, some in _groups(rows) if draw is curves or some["slip_PA"].notna().any()]
    # Where several widths are measured somewhere, what the paper alone has, and single widths, are in the table.
    ours = [group for group in groups if group[0].loc[group[0]["record"].notna(), "bits"].nunique() > 1]
    return show.gallery([draw(*group) for group in ours or groups])


def elsewhere(profile: str, dataset: str) -> HTML:
    """`table` of each other data set that the paper has code widths for."""
    return show.elsewhere(dataset, ("cifar10", "gtsrb", "imagenet10"), lambda name: table(frame(_stored(profile, name), name)))


def _stored(profile: str, dataset: str) -> list[dict]:
    return [r for r in tables.stored(profile, profiles.cells(profile, NAME)) if r["cell"]["base"]["dataset"] == dataset]


def table(rows: pd.DataFrame) -> HTML:
    """The frame as a table, columns in words, those without content left out."""
    return show.table(rows[list(SHOWN)].rename(columns=SHOWN).dropna(axis=1, how="all"), NAME)


def _sentences(some: pd.DataFrame) -> list[str]:
    """On one group: the narrowest width that works by error model, then what the slip changes."""
    lines = []
    for law in ["", *_laws(some)]:
        parts = []
        for name, line in _lines(some, law).items():
            if line["PA" if name == "none" else "PA_NF"].notna().sum() < 2:
                continue  # one width says nothing of where it ends
            clean, metric = ("CA", "PA") if name == "none" else ("CA_NF", "PA_NF")
            reference = line[clean].get(8, np.nan)
            if pd.notna(reference):
                width = narrowest(line[metric if law else clean], reference)
                who = "the base model alone" if name == "none" else name
                parts.append(f"{who} at no width" if width is None else f"{who} down to {width} bits")
                parts[-1] += "" if law else f" (clean at 8 bits: {reference:.1f} %)"
        lines += [f"  * {law or 'Without errors'}: it works for {'; '.join(parts)}."] if parts else []
    for name, line in _lines(some[some["error_model"] == SLIP], SLIP).items():
        metric, what = ("slip_PA", "PA without a generator") if name == "none" else ("slip_RP", f"RP with {name}")
        if len(known := line[line[metric].notna()]):
            each = [f"{r[metric]:+.1f} ± {r[f'{metric}_error']:.1f} at {bits} bits" for bits, r in known.iterrows()]
            sure = known.index[known[metric].abs() > 2 * known[f"{metric}_error"]]
            where = f"at {show.listed(sure)} bits" if len(sure) else "at no width"
            lines.append(f"  * The slip changes {what} by {', '.join(each)}; beyond two standard errors {where}.")
    return lines


def summary(rows: pd.DataFrame, profile: str) -> Markdown:
    """What was measured, the narrowest width that works, what the slip changes, and how far the paper's numbers are."""
    ours = rows[rows["record"].notna()]
    lines = [line for said in (show.progress(rows, profile, NAME), show.by_imitation(ours)) if said for line in (said, "")]
    for title, some in _groups(ours):
        found = _sentences(some)
        lines += [f"* **{title}**", *found] if found else []
    alone = ours["generator"] == "none"
    parts = [ours.loc[some, name] / ours.loc[some, f"{name}_error"] for name, some in (("slip_PA", alone), ("slip_RP", ~alone))]
    tests = np.concatenate(parts)
    if np.isfinite(tests).any():
        lines.append(
            f"* Of all {np.isfinite(tests).sum()} changes by the slip, {(abs(tests) > 2).sum()} are beyond two standard errors; "
            "chance alone puts about one in twenty there, more with few patterns."
        )
    below = ours[(ours["bits"] < 8) & alone & ours["PA_difference"].notna()]
    gap = below.assign(gap=below["PA_difference"].abs()).groupby("error_model")["gap"].mean()
    if len(gap):
        words = {TRUE: "with true two's complement", SLIP: "with the slip"}
        said = show.listed(f"{gap[law]:.1f} points {words[law]}" for law in words if law in gap.index)
        nearer = f"; nearer is {gap.idxmin()}" if len(gap) > 1 else ""
        lines.append(f"* Below 8 bits our PA without a generator is off the paper's on average by {said}{nearer}.")
    official = ours["error_model"] == np.where(ours["bits"] < 8, SLIP, TRUE)  # as the official code reads codes back
    far = (ours["PA_NF"] - ours["published_PA_NF"])[~alone & official].dropna()
    if len(far):
        each = far.groupby(ours.loc[far.index, "bits"]).mean()[::-1]
        said = "; ".join(f"{value:+.1f} at {bits} bits" for bits, value in each.items())
        lines.append(f"* Behind generators our PA(NF), read back as the official code does it, minus the paper's is, in points on average: {said}.")
    if not len(gap) and not len(far):
        known = rows[PUBLISHED].notna().any(axis=None)
        lines.append(
            "* The paper's numbers are shown where ours are missing: ours do not cover its settings yet."
            if known
            else "* The paper has none of these settings, so nothing here can be compared with it."
        )
    return show.prose("\n".join(lines))
