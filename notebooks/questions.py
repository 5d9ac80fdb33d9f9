# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # What did reviewers ask, and what was measured?
#
# **Each of the reviewers' questions has an answer here that rests on records or counts; it need not be complete. What
# was not measured is said in the answer, and what stays open in the last section.** Unless it says otherwise, an answer
# is for a full-size VGG11 of 12 epochs on CIFAR-10, under 1 % bit errors of the official code's error map; generators
# were trained by distillation, not by the paper's algorithm.
#
# The paper was reviewed in public for ICLR 2024 (reviewers Qmac, YHTK, uT9R, 7gLE and the area chair) before it
# appeared at NeurIPS 2024. The questions are in our words; where several reviewers asked the same, all are named. *PA*
# is accuracy under errors, and a *chip* one error pattern.

# %% tags=["parameters"]
records: str = "paper12"  # the profile that most answers rest on
others: str = "paper"  # that of latencies and of predictability on a second base model
narrow: str = "desk"  # that of answers for a narrow VGG11, which say so

# %% tags=["hide-cell"]
import numpy as np
import pandas as pd
from IPython.display import Markdown, display
from IPython.utils.capture import capture_output

from nflib.report import claim, page, span, stored
from nflib.report.show import keep, to_csv
from nflib.study import simulate

every, thirty = stored(records), stored(others)
every, thirty = (
    rows[(rows["dataset"] == "CIFAR-10") & (rows["width"] == 1) & (rows["base_seed"] == 0)] for rows in (every, thirty)
)
narrowed = stored(narrow).query("dataset == 'CIFAR-10'")
desk = narrowed[narrowed["base_model"] == "VGG11"]
every = every[(every["base_model"] == "VGG11") & (every["bits"] == 8) & (every["generator_seed"] == 0)]
every = every.sort_values(["images", "patterns"], kind="stable")
ranks = page("tradeoff", records)["ranks"]  # largest net savings, by the page "Does it pay?"
ranks = ranks[ranks["setting"].str.contains("VGG11.*release.*ReleaseMap")].set_index("system")["at_1"]


def some(rows=every, **wanted):
    """Rows of the official setting with the values wanted."""
    wanted = {"base_recipe": "release", "error_model": "ReleaseMap", "rate": 0.01, "kind": "accuracy"} | wanted
    return rows[np.logical_and.reduce([rows[name] == value for name, value in wanted.items()])]


def one(**wanted):  # the row of 20 chips and 2,000 images
    return some(**{"patterns": 20, "images": 2000} | wanted).iloc[-1]


alone, trained = one(system="alone"), some(training="distillation", trained_on="VGG11", patterns=20, images=2000)
trained = trained[trained["train_rate"] == 0.01].set_index("system")
label, front = one(system="class-wise, by true label"), some(patterns=20, images=2000)
front = front[front["selector"] != "none"].sort_values("perturbed")
counts = page("energy", "stored")  # of all pairs, by the page on energy
pairs, size, bases, fronts = (counts[name] for name in ("pairs", "counted", "bases", "fronts"))
rows = []


def ask(topic, question, asked_by, answer, page, holds):
    with capture_output():  # the table shows it
        claim(holds, answer)
    rows.append(dict(topic=topic, question=question, asked_by=asked_by, answer=answer, page=page, holds=bool(holds)))


# %% tags=["hide-cell"]
# fmt: off
W, P, R, G, U = "Why it works", "Does it pay?", "How predictable is it?", "The generator", "How general is it?"

uip = one(system="one perturbation for all images")
ask(W, "How can a change of the input make up for errors in all layers?", "7gLE",
    f"Knowing the class suffices: perturbations selected by the true label raise PA from {alone['perturbed']:.1f} to "
    f"{label['perturbed']:.1f} %, one for all images only to {uip['perturbed']:.1f} %. A ConvL trained on the paper's loss while "
    "images faded in also tells the classifier the class (narrow networks).", "mechanism", label["perturbed"] > 90 > uip["perturbed"] + 20)
bits = some(kind="sensitivity", system="alone").set_index("hit")["perturbed"]
whole = some(patterns=10, images=1000, system="alone").iloc[-1]
lost = (whole["clean"] - bits).sort_index()
low = lost[[f"bit {k}" for k in range(6)]].max()
ask(W, "Which bits matter, the highest or the lowest?", "7gLE",
    f"The highest: errors in the top bit alone cost {lost['bit 7']:.1f} points, in all bits "
    f"{whole['clean'] - whole['perturbed']:.1f}, in any one of the six lowest at most {low:.1f}.",
    "sensitivity", lost["bit 7"] > 5 * low)
layers = lost[lost.index.str.startswith("layer")]
early, late = layers.iloc[:4].sum(), layers.iloc[4:].sum()
ask(W, "Which layers matter? Should the later ones be protected?", "7gLE",
    f"The early ones, for VGG11: one layer at a time, errors in the first four of {len(layers)} layers cost {early:.1f} points "
    f"together, in the others {late:.1f}.", "sensitivity", early > 2 * late)
shifted = some(kind="shift", training="distillation", trained_on="VGG11")
sure = shifted["recovery"] > 2 * shifted["recovery_se"]
ask(W, "Does it hold when test images differ from those of training?", "7gLE",
    f"Two distilled generators recover in {sum(sure)} of {len(shifted)} cases (noise, blur, low contrast, dark "
    f"images): {span(shifted['recovery'])} points.", "shift", sure.mean() > 0.8)
faded = some(desk, training="faded EOPM", trained_on="VGG11", steps=7000).set_index("system")
inside = faded.loc[faded.index.str.startswith("ConvL after"), "recovery"]
beside, ahead = (faded.loc[name] for name in ("ConvL encoder in parallel", "ConvL"))
ask(W, "Are noise-trained layers, a later layer or a parallel branch as good as a generator?", "7gLE",
    f"After 7,000 steps a parallel branch is better: beside a narrow VGG11, half of ConvL recovers {beside['recovery']:.1f} and costs "
    f"{beside['clean_alone'] - beside['clean']:.1f} without errors; in front, all of it recovers {ahead['recovery']:.1f} and "
    f"costs {ahead['clean_alone'] - ahead['clean']:.1f}. After the first or second block it recovers {span(inside)}.",
    "variants", beside["recovery"] > ahead["recovery"] + 5)

best = ranks[ranks.index.isin(trained.index)]
ask(P, "Is there a point with less than 1 % loss and a net saving?", "7gLE, Qmac",
    f"Yes, for {sum(best > 0)} of {len(best)} generators: {best.idxmax()} saves {best.max():.1f} % of weight-read "
    "energy at one point lost.", "tradeoff", best.max() > 2)
ask(P, "What does the same loss buy without a generator? (Our reading: a slightly higher voltage.)", "7gLE",
    f"More: the base model alone at a higher voltage saves {ranks['alone']:.1f} % at one point lost.",
    "tradeoff", ranks["alone"] > 2 * best.max())
hardware = some(kind="mitigation", patterns=20).set_index("mitigation")
said = [f"{row.system} {row.perturbed:.1f} %" for row in hardware.loc[["spare_sign", "secded", "zero_by_parity"]].itertuples()]
ask(P, "What about error-correcting codes, protected high bits and masked weights?", "YHTK, 7gLE, area chair",
    f"PA is {alone['perturbed']:.1f} % alone; {'; '.join(said)}; behind ConvL {trained.loc['ConvL', 'perturbed']:.1f} %.",
    "tradeoff", hardware["perturbed"].min() > alone["perturbed"] + 10)
cut = hardware.loc["cut_weights"]
ask(P, "And cheap ways that leave the model alone, such as clamping weights?", "7gLE",
    f"Weights clipped at 3 × RMS: PA rises from {alone['perturbed']:.1f} to {cut['perturbed']:.1f} %, accuracy without errors "
    f"changes from {alone['clean']:.1f} to {cut['clean']:.1f} %. The limit was chosen on test images.",
    "tradeoff", cut["recovery"] > 2 * cut["recovery_se"])
norm = some(desk, kind="mitigation", mitigation="batch_norm").iloc[-1]
ask(P, "Do output ensembles, test-time averages or new batch-norm statistics help?", "YHTK, 7gLE",
    f"New batch-norm statistics do: taken on each chip from 1,000 images without labels, they raise PA from "
    f"{norm['perturbed_alone']:.1f} to {norm['perturbed']:.1f} % (narrow VGG11). The others were not measured.",
    "tradeoff_desk", norm["recovery"] > 2 * norm["recovery_se"])
clipped = some(base_recipe="clipped", patterns=20, images=2000).iloc[-1]
ask(P, "And training for it: weight clipping, random bit errors (Stutz et al.)?", "YHTK, 7gLE, area chair",
    f"Yes: weights clipped at {clipped['clipping']:g} in training give a PA of {clipped['perturbed']:.1f} % (usual training: "
    f"{alone['perturbed']:.1f} %) and {clipped['clean']:.1f} % without errors ({alone['clean']:.1f} %). Training on random "
    "bit errors was measured at half width only.", "base_recipe", clipped["perturbed"] > alone["perturbed"] + 20)
released, again = some(desk, system="alone").iloc[-1], some(desk, base_recipe="varied").set_index("tuned")["perturbed"].drop("none")
ask(P, "Does error-aware fine-tuning of some layers help?", "YHTK, 7gLE",
    f"Yes: three epochs on random bit errors raise the PA of a narrow VGG11 from {released['perturbed']:.1f} to "
    f"{', '.join(f'{pa:.1f} % ({name})' for name, pa in again.sort_values().items())}.",
    "base_recipe_desk", again.min() > released["perturbed"])
larger = counts["there"]
ask(P, "What does the generator cost for larger images?", "YHTK, uT9R",
    f"At 224×224, {sum(larger < 0)} of {len(pairs)} pairs take more weight-read energy than they save at 1 %; at 32×32, "
    f"{sum(pairs['true_ES'] < 0)}.", "energy", sum(larger < 0) > sum(pairs["true_ES"] < 0))
ask(P, "What share of the whole inference's energy is that?", "uT9R, YHTK",
    f"By published energies of arithmetic and memories, weight reads are {span(counts['share'], 0)} % of a base model's energy on "
    f"the chip; of all of it a pair saves {span(pairs['saved'], 0)} %. Leakage and main memory are not counted.",
    "energy", pairs["saved"].max() < pairs["true_ES"].max())
cycles = simulate.cycle_overhead(32)["true_cycles"]
slower, slower224 = (page("overhead", others)[name]["overhead"] for name in ("small", "large"))  # at 32 and 224 pixels
ask(P, "What does it cost in time?", "YHTK, uT9R",
    f"On a simulated 32 by 32 array a generator adds {span(cycles)} % cycles for images of 32×32 pixels. On two CPU cores, one "
    f"image at a time, ResNet18 and VGG19 take {span(slower, 0)} % longer, at 224×224 {span(slower224, 0)} %.",
    "overhead", slower.min() > 5)

stds = [some(error_model=e, system="alone", patterns=50)["std"].iloc[-1] for e in ("ReleaseMap", "StuckAt", "BitFlips")]
ask(R, "Why does accuracy vary so much over chips?", "uT9R",
    f"Mostly through the official error map, for VGG11 alone: the standard deviation over 50 chips is {stds[0]:.1f} points under "
    f"ReleaseMap, {stds[1]:.1f} with independent stuck cells and {stds[2]:.1f} with independent flips.",
    "error_models", stds[0] > 1.5 * stds[2])
second = some(thirty, patterns=50, base_model="VGG11", training="distillation", trained_on="VGG11")
large, long = trained.loc["ConvL"], second.set_index("system").loc["ConvL"]
ask(R, "How low does a bad chip fall behind a generator?", "uT9R",
    f"The worst of 20 chips behind ConvL has {large['worst']:.1f} % (alone {alone['worst']:.1f} %). With a base model "
    f"of 30 epochs, and its own ConvL, the worst of 50 has {long['worst']:.1f} %.",
    "accuracy", large["worst"] > alone["worst"] + 20)
good = [sum(row["accuracies"] >= first["clean"] - 5) for row, first in ((large, alone), (alone, alone))]
again = sum(long["accuracies"] >= long["clean_alone"] - 5)
ask(R, "On what share of chips is it good enough?", "uT9R",
    f"Within 5 points of the base model without errors: {good[0]} of 20 chips behind ConvL, {good[1]} alone; with the "
    f"base model of 30 epochs {again} of 50 behind ConvL.", "accuracy", good[0] > good[1])
known = some(narrowed, generator="class-wise", selector="none").set_index("base_model")
below = sum(known.loc["ResNet50", "accuracies"] < 50)
deep = some(narrowed, system="ConvL", trained_on="ResNet50", base_model="ResNet50").iloc[-1]
ask(R, "Why does ResNet50 stay far below its accuracy without errors?", "uT9R",
    f"On some chips class-wise perturbations, too, help little. With the true label known, class-wise perturbations give a narrow "
    f"ResNet50 a PA of {known.loc['ResNet50', 'perturbed']:.1f} %, below 50 % on {below} of 20 chips (VGG11: "
    f"{known.loc['VGG11', 'perturbed']:.1f} %). A ConvL trained on the paper's loss changes PA by {deep['recovery']:.1f} points.",
    "ablations", 5 < below and known.loc["VGG11", "perturbed"] > 90 and deep["recovery"] < 2 * deep["recovery_se"])
ask(R, "Where is a system of uncertain accuracy of use?", "uT9R",
    f"Where each chip is tested before use and a bad one gets a higher voltage. By the measure above {good[0]} of 20 chips "
    f"pass behind ConvL, with the base model of 30 epochs {again} of 50: untested, the rest is the risk.",
    "accuracy", good[0] > good[1] and again < 50)

small, large = (size.loc[list(some), "parameters"] / 1e6 for some in (fronts, bases))
ask(G, "How large are generators beside the classifiers?", "Qmac",
    f"{span(small, 2)} million parameters in front of {span(large)} million.", "overhead", small.max() < large.min())
ask(G, "How small may one be, and where does recovery stop?", "YHTK, uT9R",
    f"ConvS reaches a PA of {trained.loc['ConvS', 'perturbed']:.1f} %, ConvL {trained.loc['ConvL', 'perturbed']:.1f}. With class-wise "
    f"perturbations it follows the selecting classifier: {front.iloc[0]['perturbed']:.1f} % with the {front.iloc[0]['selector']}, "
    f"{front.iloc[-1]['perturbed']:.1f} with the {front.iloc[-1]['selector']}.", "mechanism", front.eval("abs(perturbed-clean)").max() < 1)
forms = faded.loc[faded.index.str.contains("wide|shallow|leaky"), "recovery"].rename(lambda name: name.removeprefix("ConvL, "))
ask(G, "Which depth, width and activation are best?", "Qmac",
    f"Wider recovers more, shallower less, leaky ReLU no more (narrow VGG11; none deeper trained): ConvL {ahead['recovery']:.1f} points, "
    f"{', '.join(f'{name} {points:.1f}' for name, points in forms.sort_values().items())}.", "variants",
    forms[["half as wide", "shallow"]].max() + 5 < ahead["recovery"] < forms["twice as wide"] - 5 and forms["leaky ReLU"] < 22)
too = some(kind="sensitivity", hit="generator too").set_index("system")
said = [f"{name} {pa:.1f} % instead of {trained.loc[name, 'perturbed']:.1f} %" for name, pa in too["perturbed"].items()]
ask(G, "What if the generator's own memory has errors too?", "Qmac",
    f"Then PA falls below that of the base model alone ({whole['perturbed']:.1f} %): {' and '.join(said)}.",
    "sensitivity", too["perturbed"].max() < whole["perturbed"])

moved = some(training="distillation", trained_on="ResNet18", patterns=20).set_index("system")
share = [100 * moved.loc[name, "recovery"] / trained.loc[name, "recovery"] for name in moved.index]
ask(U, "Must a generator be trained for each model, and how long does that take?", "7gLE",
    f"One distilled for ResNet18 keeps {min(share):.0f} to {max(share):.0f} % of the recovery of VGG11's own. "
    f"Distilling one for VGG11 took {span(trained['training_minutes'], 0)} minutes on two CPU cores.", "transfer", max(share) < 100)
unet = {"training": "distillation", "system": "UNetL", "trained_on": "VGG11", "patterns": 20}
rates = {rate: some(rate=rate, **unet).iloc[-1] for rate in (0.001, 0.005, 0.01)}
said = [f"{100 * p:g} %: {row['perturbed']:.1f} (alone {row['perturbed_alone']:.1f})" for p, row in rates.items()]
ask(U, "Does a generator serve at other bit-error rates than its own?", "7gLE",
    f"PA behind UNetL, trained at 1 %, by the rate that it meets: {', '.join(said)}. At low rates it costs accuracy.",
    "tradeoff", rates[0.001]["recovery"] < 0 < rates[0.01]["recovery"])
conv = desk[(desk["training"] == "faded EOPM") & (desk["error_model"] == "ReleaseMap")]
conv = conv[(conv["kind"] == "accuracy") & (conv["steps"] == 7000) & (conv["trained_on"] == "VGG11") & (conv["bits"] == 8)]
lone, mixed = (conv[conv["system"] == name].set_index("rate") for name in ("ConvL", "ConvL, mixed rates"))
cost = [(row["clean_alone"] - row["clean"]) for row in (mixed.iloc[0], lone.iloc[0])]
ask(U, "Does training over several rates help?", "7gLE",
    f"At low rates. A ConvL trained on the paper's loss over four rates up to 1 % costs {cost[0]:.1f} points without errors (one "
    f"trained at 1 % alone: {cost[1]:.1f}) and raises accuracy at each of {len(mixed)} rates; but at 1 % it recovers "
    f"{mixed.loc[0.01, 'recovery']:.1f} points instead of {lone.loc[0.01, 'recovery']:.1f} (narrow VGG11).",
    "tradeoff_desk", cost[0] < 1 < cost[1] and mixed["recovery"].min() > 0 and mixed.loc[0.01, "recovery"] < 15)
cct = some(narrowed, base_model="CCT")
seen = cct[cct["trained_on"] == "VGG11"].set_index("system")["recovery"]
ask(U, "What about other tasks and architectures, such as transformers?", "7gLE",
    f"A narrow transformer (CCT) is hurt as much: 1 % errors take it from {cct['clean_alone'].max():.1f} to "
    f"{cct['perturbed_alone'].max():.1f} %. Generators trained for VGG11 recover {span(seen)} points of that, those for ResNet18 "
    "harm it. Its own were not trained; other tasks were not measured.", "transfer_desk", seen.min() > 2)
# fmt: on

# %% [markdown]
# ## The questions and their answers

# %% tags=["hide-input"]
found = pd.DataFrame(rows)
claim(found["holds"].all(), f"Each of the {len(found)} questions has an answer whose stated condition holds on our records.")
keep("questions.csv", to_csv(found))
for topic, some in found.groupby("topic", sort=False):
    lines = [f"<p class='nflib-topic'>{topic}</p>\n"]
    for row in some.itertuples():
        answer = f"{'✓' if row.holds else '✗'} {row.answer.replace(' -', ' −')} ([more]({row.page}.ipynb))"
        lines.append(f"{row.question} *{row.asked_by}*\n: {answer}\n")
    display(Markdown("\n".join(lines)))

# %% [markdown]
# ## Limits
#
# Answers for one classifier and one data set do not settle a question in general. Pages measure on different numbers of
# chips and images, so the same accuracy differs by up to two points between answers (VGG11 alone: 55.4 and 53.4 %).
# Open are: the official recipe trained to its end, which may change some answers; several seeds of generators trained on
# the paper's loss; a deeper ConvL; narrow networks on CIFAR-100 and GTSRB; ensembles and test-time averages; other tasks.
