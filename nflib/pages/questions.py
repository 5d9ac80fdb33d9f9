"""The page "questions": what the paper's reviewers asked, each with the measurement that answers it, or with what is missing."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from IPython.display import Markdown

from nflib import grids, profiles, recipes, show, simulate, tables
from nflib.cells import digest_of
from nflib.mitigations import MITIGATIONS
from nflib.pages import error_models, index, mechanism, seeds, sensitivity, shift, tradeoff, transfer, transformed_images

PLAIN = 10.0  # points of difference that need no statistics
SOON = "not measured at full size yet: `nflib sweep {} --profile paper`"


def _example(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the base model that the first page shows too, on one data set."""
    rows = rows[rows["base_model"] == index.AT["base_model"]]
    return rows[rows["dataset"] == rows["dataset"].iloc[0]] if len(rows) else rows


class Facts:
    """The frames that answers are read from, each made when it is first asked for; profile: whose records they rest on."""

    def __init__(self, profile: str):
        self.profile = profile

    @functools.cache  # two answers may rest on the same table
    def _records(self, table: str) -> list[dict]:
        return tables.fullest(tables.stored(self.profile, profiles.cells(self.profile, table)))

    @functools.cached_property
    def mechanism(self) -> pd.DataFrame:
        """Rows of the mechanism page for one base model, the official error map and recipe."""
        rows = mechanism.frame(self._records("mechanism"))
        return _example(rows[(rows["error_model"] == "ReleaseMap") & (rows["how"] != mechanism.ENCODER)])

    @functools.cached_property
    def error_models(self) -> pd.DataFrame:
        rows = error_models.frame(self._records("error_models"))
        rows = rows[rows["PA"].notna() & (rows["base_recipe"] == "release") & (rows["ber_percent"] == 1.0)]
        return _example(rows).drop_duplicates("error_model").set_index("error_model")  # PA stands in the rows of generators too

    @functools.cached_property
    def tradeoff(self) -> pd.DataFrame:
        rows = tradeoff.frame(self._records("tradeoff"))
        return _example(rows[tables.comparable(rows) & rows["CA"].notna()])

    @functools.cached_property
    def transfer(self) -> pd.DataFrame:
        """Pairs of a generator and a base model that it never saw, whose own generator is measured too."""
        rows = transfer.frame(tables.longest(tables.stored(self.profile, transfer.grid(self.profile))), "cifar10")
        rows = rows[tables.comparable(rows) & (rows["target"] == "unseen") & (rows["ber_percent"] == 1.0)]
        return rows.dropna(subset=["RP", "own_RP"])

    @functools.cached_property
    def shift(self) -> pd.DataFrame:
        rows = shift.frame(self._records("shift"))
        return _example(rows[tables.comparable(rows)])

    @functools.cached_property
    def seeds(self) -> pd.DataFrame:
        rows = seeds.frame(tables.stored(self.profile, profiles.cells(self.profile, "seeds")))  # of any length: trained again is what counts
        return _example(rows[tables.comparable(rows)])

    @functools.cached_property
    def transformed_images(self) -> pd.DataFrame:
        rows = transformed_images.frame(tables.stored(self.profile, profiles.cells(self.profile, "transformed_images")))
        return _example(rows[rows["base_recipe"] == "release"])

    @functools.cached_property
    def base_recipe(self) -> pd.DataFrame:
        return _example(recipes.frame(tables.stored(self.profile, profiles.cells(self.profile, "base_recipe"))))

    @functools.cached_property
    def sensitivity(self) -> dict[str, pd.DataFrame]:
        """Rows of each system: "alone" and "behind" each generator."""
        rows = sensitivity.frame(self._records("sensitivity"))
        rows = rows[tables.comparable(rows)]
        return dict(sensitivity._systems(_example(rows)))


@dataclass(frozen=True)
class Question:
    """asked: by which reviewers (ICLR 2024, OpenReview).  answer: a sentence from the facts, or None while records are
    missing; a text says why there is none.  table: the sweep that measures it.  page: where it is shown."""

    topic: str
    asked: str
    text: str
    answer: Callable[[Facts], str | None] | str
    page: str = ""
    table: str = ""


def _told(facts: Facts) -> str | None:
    rows = facts.mechanism
    told, one = rows[rows["how"] == mechanism.TOLD], rows[rows["how"] == mechanism.ONE]
    if told.empty or one.empty:
        return None
    much = told["PA_NF"].iloc[0] - one["PA_NF"].iloc[0] > PLAIN
    text = (
        ("To tell the class, and to write the answer large, is enough. " if much else "Not because it tells the class. ")
        + "Ten fixed pictures, one a class, added by somebody who knows the label, bring "
        f"{told['base_model'].iloc[0]} under errors from {told['PA'].iloc[0]:.1f} to {told['PA_NF'].iloc[0]:.1f} %; one picture for all "
        f"classes brings it to {one['PA_NF'].iloc[0]:.1f} %."
    )
    unaided = transformed_images.unaided(facts.transformed_images)
    return f"{text} {unaided}" if much and unaided else text


def _encoders(facts: Facts) -> str | None:
    rows = facts.mechanism[facts.mechanism["how"] == mechanism.RELAYED]
    if rows.empty:
        return None
    rows = rows.sort_values("macs_million")
    said = [f"{r.generator.rpartition(', ')[2]} {r.PA_NF:.1f} %" for r in rows.itertuples()]
    least, alone = rows.iloc[0], rows["PA"].iloc[0]
    stops = f"No stop was found: the cheapest still recovers {least['RP']:+.1f} points" if least["RP"] > 2 * least["RP_error"] else "The cheapest recovers nothing clear"
    return (
        f"As small as the classifier may be that tells the class. {stops}. Alone {alone:.1f} %; with class patterns told by a generator's encoder, "
        "from the cheapest to the dearest: " + "; ".join(said) + "."
    )  # fmt: skip


def _training(facts: Facts) -> str | None:
    rows = facts.mechanism[facts.mechanism["how"] == mechanism.IMITATED].sort_values("PA_NF")
    if rows.empty:
        return None
    top = rows.iloc[-1]
    text = (
        f"{top['generator']} that imitates class patterns takes {top['training_minutes']:.0f} minutes of training on {top['trained_on']}, its "
        f"teacher included, and brings {top['PA']:.1f} to {top['PA_NF']:.1f} %"
        + (f" (the paper: {top['published_PA']:g} to {top['published_PA_NF']:g} %)." if not np.isnan(top["published_PA_NF"]) else ".")
    )
    unseen = facts.transfer
    if len(unseen):
        kept = 100 * unseen["RP"].mean() / unseen["own_RP"].mean()
        text += (
            f" Without training anew, a generator that was trained for another base model keeps {kept:.0f} % of what one of its own recovers "
            f"({show.count(len(unseen), 'pair')}; [transfer](transfer.ipynb))."
        )
    return text


def _bits(facts: Facts) -> str | None:
    rows = facts.sensitivity.get("alone")
    if rows is None or not rows["hit"].str.startswith("bit").any():
        return None
    bits = rows[rows["hit"].str.startswith("bit")].set_index("hit")["loss"]
    whole = rows.loc[rows["hit"] == sensitivity.EVERYWHERE, "loss"]
    low = bits.drop(bits.nlargest(2).index)
    top = bits.idxmax()
    return f"Errors in {top} alone cost {bits[top]:.1f} points" + (
        f" where errors everywhere cost {whole.iloc[0]:.1f}" if len(whole) else ""
    ) + f"; in each bit but {show.listed(bits.nlargest(2).index)}, {low.max():.1f} at most."  # fmt: skip


def _layers(facts: Facts) -> str | None:
    rows = facts.sensitivity.get("alone")
    rows = None if rows is None else rows[rows["hit"].str.startswith("layer")]
    if rows is None or rows.empty:
        return None
    rows = rows.reset_index(drop=True)
    top, half = sensitivity.most(rows), (len(rows) + 1) // 2
    early, late = rows["loss"][:half].sum(), rows["loss"][half:].sum()
    verdict = "Rather the earlier ones" if early > 2 * late else "The later ones indeed" if late > 2 * early else "Neither half stands out"
    return (
        f"{verdict}: one layer at a time, errors in the first {half} of {len(rows)} cost {early:.1f} points together, in the others {late:.1f}. "
        f"Most cost {show.listed(top['hit'])} ({show.listed(f'{loss:.1f}' for loss in top['loss'])}), the last {rows['loss'].iloc[-1]:.1f}."
    )


def _generator_too(facts: Facts) -> str | None:
    parts = []
    for words, rows in facts.sensitivity.items():
        rows = rows.set_index("hit")["accuracy"]
        if {sensitivity.TOO, sensitivity.EVERYWHERE} <= set(rows.index):
            parts.append(f"{words} {rows[sensitivity.EVERYWHERE]:.1f} % become {rows[sensitivity.TOO]:.1f} %")
    return f"At the same bit-error rate: {'; '.join(parts)}." if parts else None


def _pareto(facts: Facts) -> str | None:
    return tradeoff.bargains(facts.tradeoff, 1.0) if facts.tradeoff["kind"].isin(tradeoff.FRONTS).any() else None


def _beaten(facts: Facts) -> str | None:
    front = facts.tradeoff[facts.tradeoff["kind"].isin(tradeoff.FRONTS)]
    if front.empty:
        return None
    return (
        f"Of {len(front)} measured points behind {show.listed(front['system'])} (system and bit-error rate) {len(tradeoff.beaten(facts.tradeoff))} are "
        "beaten by the same base model alone at some voltage that was measured, in accuracy and in saving."
    )


def _hardware(facts: Facts) -> str | None:
    asked = [chosen.label for name, chosen in MITIGATIONS.items() if name != "cut_weights"]  # which is a question of its own
    rows = facts.tradeoff[facts.tradeoff["system"].isin(asked) & (facts.tradeoff["ber_percent"] == 1.0)]
    if not rows["system"].isin([MITIGATIONS["secded"].label, MITIGATIONS["zero_by_parity"].label]).any():
        return None
    parts = [f"{r.system} {r.accuracy:.1f} % ({r.saving:.1f} % saved)" for r in rows.itertuples()]
    missing = [label for label in asked if label not in set(rows["system"])]
    text = f"At a bit-error rate of 1 %, where the base model without errors has {rows['CA'].iloc[0]:.1f} %: {'; '.join(parts)}."
    return text + (f" Not measured: {show.listed(missing)}." if missing else "")


def _cut(facts: Facts) -> str | None:
    rows = facts.tradeoff[facts.tradeoff["ber_percent"] == 1.0].set_index("system")
    label = MITIGATIONS["cut_weights"].label
    if not {label, tradeoff.ALONE} <= set(rows.index):
        return None
    cut, alone, front = rows.loc[label], rows.loc[tradeoff.ALONE], rows[rows["kind"].isin(tradeoff.FRONTS)]
    text = (
        f"The same classifier with its {label} before they are coded, without training: {alone['accuracy']:.1f} becomes {cut['accuracy']:.1f} % "
        f"(worst chip {cut['worst']:.1f} %), without errors {alone['clean']:.1f} and {cut['clean']:.1f} %."
    )
    return text + (f" Behind generators: {show.listed(f'{r.Index} {r.accuracy:.1f} %' for r in front.itertuples())}." if len(front) else "")


def _resistant(facts: Facts) -> str | None:
    """Base models trained to resist errors, beside the one that generators stand in front of."""
    rows = facts.base_recipe
    rows = rows[(rows["error_model"] == "ReleaseMap") & (rows["ber_percent"] == 1.0)]
    robust = rows[rows["base_recipe"].isin(grids.ROBUST_RECIPES)]
    if robust.empty:
        return None
    lengths, usual = ["base_model", "width", "base_epochs"], rows[rows["base_recipe"] == "release"]
    beside = robust.merge(usual[lengths].drop_duplicates())  # trained as long as the usual one
    like = (beside if len(beside) else robust).sort_values(["width", "base_epochs"], kind="stable").iloc[-1][lengths]
    rows = rows[(rows[lengths] == like).all(axis=1)].sort_values(["images", "patterns"], kind="stable")
    rows = rows.drop_duplicates("base_recipe", keep="last").set_index("base_recipe")
    known = [name for name in ("release", *grids.ROBUST_RECIPES) if name in rows.index]
    said = [f"`{name}` {rows['PA'][name]:.1f} % (worst chip {rows['PA_worst'][name]:.1f} %), without errors {rows['CA'][name]:.1f} %" for name in known]
    best = max(rows["PA"][name] for name in known if name != "release")
    gain = best - rows["PA"].get("release", np.nan)
    verdict = "It helps much. " if gain > PLAIN else "It helps little. " if gain > 0 else "It does not help. " if gain <= 0 else ""
    text = f"{verdict}{like['base_model']} of {like['base_epochs']} epochs under errors, without a generator: {'; '.join(said)}."
    missing = [f"`{name}`" for name in grids.ROBUST_RECIPES if name not in known]
    text += f" Not measured: {show.listed(missing)}." if missing else ""
    front = facts.tradeoff[(facts.tradeoff["ber_percent"] == 1.0) & (facts.tradeoff["base_epochs"] == like["base_epochs"])]
    front = front[front["kind"].isin(tradeoff.FRONTS) & (front["base_model"] == like["base_model"])]
    behind = [f"{r.system} {r.accuracy:.1f} %" for r in front.sort_values("accuracy", ascending=False).itertuples()]
    return text + (f" `release` behind generators: {show.listed(behind)}." if behind else "")


def _other_rates(facts: Facts) -> str | None:
    rows, parts = facts.tradeoff[facts.tradeoff["kind"].isin(tradeoff.FRONTS)], []
    for system, some in rows.groupby("system", sort=False):
        some = some.set_index("ber_percent")["accuracy"]
        if {0.1, 0.5, 1.0} <= set(some.index):
            parts.append(f"{system} {some[0.1]:.1f}, {some[0.5]:.1f} and {some[1.0]:.1f} %")
    return f"Trained at 1 %, measured at 0.1, 0.5 and 1 %: {'; '.join(parts)}." if parts else None


def _spread(facts: Facts) -> str | None:
    rows, laws = facts.error_models, ("ReleaseMap", "ReleaseMap, tiling corrected", "StuckAt", "BitFlips")
    rows = rows.loc[[law for law in laws if law in rows.index]]
    if laws[0] not in rows.index or len(rows) < 2:
        return None
    others = rows["PA_std"].drop(laws[0])
    verdict = "Mostly from" if others.max() < rows["PA_std"][laws[0]] / 2 else "In part from" if others.min() < rows["PA_std"][laws[0]] else "Not from"
    known = [f"{r.Index} {r.PA_std:.1f} (worst {r.PA_worst:.1f} %)" for r in rows.itertuples()]
    return (
        f"{verdict} the official code's error map. Standard deviation over {show.listed(rows['patterns'])} chips of the base model alone, in "
        f"points: {'; '.join(known)}."
    )


def _worst(facts: Facts) -> str | None:
    rows = facts.mechanism[facts.mechanism["generator"] != "none"].sort_values("PA_NF")
    rows = rows[~rows["how"].isin((mechanism.ONE, mechanism.TOLD))]
    if rows.empty:
        return None
    top = rows.iloc[-1]
    return (
        f"It depends on how well the class is told: {mechanism.front(top)} spreads by {top['PA_NF_std']:.1f} points over {top['patterns']} chips, "
        f"the worst {top['PA_NF_worst']:.1f} %, where the base model alone spreads by {top['PA_std']:.1f}, the worst {top['PA_worst']:.1f} %."
    )


def _yield(facts: Facts) -> str | None:
    rows = facts.mechanism[facts.mechanism["PA"].notna()].sort_values("PA_NF")
    fronts = rows[~rows["how"].isin((mechanism.ALONE, mechanism.ONE, mechanism.TOLD))].drop_duplicates(["how", "generator"], keep="last")
    if fronts.empty or not (rows["how"] == mechanism.ALONE).any():
        return None
    chips = {digest_of(record["cell"]): np.array(record["metrics"]["perturbed"]) for record in facts._records("mechanism")}
    alone = rows[rows["how"] == mechanism.ALONE].iloc[0]
    good = lambda row: f"{int(tradeoff.near(chips[row['record']], alone['CA']).sum())} of {row['patterns']}"  # noqa: E731
    said = [f"{mechanism.front(row)} {good(row)}" for row in fronts[::-1].head(4).to_dict("records")]
    return f"Chips on which {alone['base_model']} stays within {tradeoff.NEAR:g} points of its {alone['CA']:.1f} % without errors: alone {good(alone)}; behind {'; '.join(said)}."


def _larger_images(facts: Facts) -> str:
    saving = tables.energy_saving(224)
    return (
        f"At 224×224, {show.count(int((saving['true_ES'] < 0).sum()), 'pair')} of {len(saving)} would cost more weight-read energy than they "
        f"save at a bit-error rate of 1 %; counted by multiply-accumulates it is {int((saving['true_MAC_ES'] < 0).sum())}."
    )


def _share(facts: Facts) -> str:
    rows = tables.inference_energy(32)
    low, high = (f"{rows['share'].agg(f):.0f} %" for f in ("min", "max"))
    return (
        f"By published energies of arithmetic and memories, reading weights is {low} to {high} of what a base model takes on the chip at 32×32 pixels, and "
        f"{rows['large_share'].min():.0f} to {rows['large_share'].max():.0f} % if feature maps lie in as large a memory. Of the whole, a pair saves "
        f"{rows['saved'].min():.0f} to {rows['saved'].max():.0f} %, where ES counts {tables.energy_saving()['true_ES'].min():.0f} to "
        f"{tables.energy_saving()['true_ES'].max():.0f} % of weight reads. Leakage and main memory are not in it."
    )


def _cycles(facts: Facts) -> str:
    extra = simulate.cycle_overhead(32)["true_cycles"]
    return f"On a simulated 32 by 32 array a generator adds {extra.min():.1f} to {extra.max():.1f} % of its base model's cycles at 32×32 pixels."


def _sizes(facts: Facts) -> str:
    rows, front = tables.weight_reads().set_index("network")["parameters"], mechanism.generators.LABELS.values()
    least, most = (f(rows[list(front)]) for f in (min, max))
    bases = rows.drop(list(front))
    return f"{least:,} to {most:,} parameters in front of {bases.min():,} to {bases.max():,}."


QUESTIONS = [
    Question("Why it works", "7gLE", "How can a change of the input make up for errors in all layers?", _told, "mechanism", "mechanism"),
    Question("Why it works", "7gLE", "Which bits matter? Errors in the highest only, in the lowest only?", _bits, "sensitivity", "sensitivity"),
    Question("Why it works", "7gLE", "Which layers? Should the later ones be protected?", _layers, "sensitivity", "sensitivity"),
    Question("Why it works", "7gLE", "Does it hold under a shift of the distribution?", lambda facts: shift.answer(facts.shift), "shift", "shift"),
    Question("Does it pay?", "7gLE", "Is there a point with less than 1 % loss and a net saving, and what would the same loss buy without a generator?", _pareto, "tradeoff", "tradeoff"),
    Question("Does it pay?", "area chair", "Why not raise the voltage a little?", _beaten, "tradeoff", "tradeoff"),
    Question("Does it pay?", "YHTK, 7gLE", "What about error-correcting codes, protected high bits, masked weights?", _hardware, "tradeoff", "tradeoff"),
    Question("Does it pay?", "7gLE, YHTK", "And cheap ways that leave the chip alone, such as clamping weights?", _cut, "tradeoff", "tradeoff"),
    Question("Does it pay?", "YHTK, 7gLE", "And training for it: weight clipping, random bit errors (Stutz et al.)?", _resistant, "base_recipe", "base_recipe"),
    Question("Does it pay?", "YHTK, uT9R", "What does the generator cost for larger images?", _larger_images, "energy"),
    Question("Does it pay?", "YHTK, uT9R", "What does it cost in time on an accelerator?", _cycles, "energy"),
    Question("Does it pay?", "YHTK", "What share of the whole inference's energy is that?", _share, "energy"),
    Question("How predictable is it?", "uT9R", "Why does the accuracy spread so much over chips?", _spread, "error_models", "error_models"),
    Question("How predictable is it?", "uT9R", "And behind a generator, on the worst chip?", _worst, "mechanism", "mechanism"),
    Question("How predictable is it?", "uT9R", "On what share of chips is it good enough?", _yield, "mechanism", "mechanism"),
    Question("How predictable is it?", "not asked", "Would another training give another number?", lambda facts: seeds.answer(facts.seeds), "seeds", "seeds"),
    Question("How predictable is it?", "uT9R", "Why does ResNet50 stay far below its clean accuracy?", lambda facts: None, "accuracy", "accuracy --only model=resnet50"),
    Question("Generators", "Qmac", "How large are they beside the classifiers?", _sizes, "overhead"),
    Question("Generators", "YHTK, Qmac", "How small may one be, and where does the recovery stop?", _encoders, "mechanism", "mechanism"),
    Question("Generators", "Qmac", "What if the generator's own memory runs at low voltage too?", _generator_too, "sensitivity", "sensitivity"),
    Question("Generality", "7gLE", "Must one be trained anew for each model, and how long does that take?", _training, "mechanism", "mechanism"),
    Question("Generality", "7gLE", "Does a generator serve at other bit-error rates than its own?", _other_rates, "tradeoff", "tradeoff"),
    Question("Generality", "7gLE", "Other tasks and architectures, such as transformers?", "not measured: out of this study's scope so far."),
]  # fmt: skip


def answers(profile: str) -> list[tuple[Question, str | None]]:
    """Each question with its answer; None where there is none, for want of records or by its nature."""
    facts = Facts(profile)
    return [(q, None if isinstance(q.answer, str) else q.answer(facts)) for q in QUESTIONS]


def summary(found: list[tuple[Question, str | None]], profile: str) -> Markdown:
    """How many questions have an answer, and of which base model most of them speak."""
    done, rows = sum(text is not None for _, text in found), Facts(profile).mechanism
    text = f"**{done} of {len(found)} questions** have a measured or computed answer. The others say what is missing."
    if len(rows):
        row = rows.iloc[0]
        text += (
            f" The {row['base_model']} of most answers was trained for **{row['base_epochs']} epochs** and has {row['CA']:.1f} % without errors, "
            f"{row['PA']:.1f} % with them. One that is trained for longer has other numbers: see the [first page](index.ipynb)."
        )
    return show.prose(text)


def listing(found: list[tuple[Question, str | None]]) -> Markdown:
    """Questions and answers by topic."""
    lines, topic = [], ""
    for question, text in found:
        if question.topic != topic:
            topic = question.topic
            lines += [f"## {topic}", ""]
        link = f" [More]({question.page}.ipynb)" if question.page else ""
        missing = question.answer if isinstance(question.answer, str) else SOON.format(question.table)
        lines += [f"**{question.text}** ({question.asked})", "", f"{text if text is not None else f'*Open*: {missing}'}{link}", ""]
    return show.prose("\n".join(lines))
