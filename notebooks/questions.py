# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What reviewers asked
#
# **Question.** The paper was discussed in public, at ICLR 2024, before it appeared at NeurIPS 2024. Reviewers (Qmac, YHTK,
# uT9R, 7gLE, and the area chair) asked for measurements that the paper does not have. What do they show?
#
# Unless it says otherwise, an answer is for VGG11 on CIFAR-10, base recipe `release`, under the official code's error map at
# a bit-error rate of 1 %, trained for the number of epochs that most is measured of, which is said below. Each links to the
# page that shows how it was measured. The questions are in our words. Pages measure on different numbers of chips and
# images, so the same accuracy can differ by a point or two between answers.

# %% tags=["parameters", "remove-input"]
profile: str = "paper"  # whose records the answers rest on

# %% tags=["hide-input"]
from nflib.pages import questions

found = questions.answers(profile)
questions.summary(found, profile)

# %% tags=["remove-input"]
questions.listing(found)
