"""Names, and one-line refusals: an unknown name is answered with the nearest right one."""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # of the checkout
MOST = 1e9  # that a number of a recipe may be
PROFILES = ("smoke", "desk", "paper12", "paper")  # scales of the study; `study.recipes` says what each trains


class UserError(ValueError):
    """A user's mistake, told in one line; the command line prints it without a traceback."""


def check_numbers(owner: object, most: float = MOST, **least: float) -> None:
    """Raise UserError unless each field named is a number from its least to `most`, whole where the annotation says int."""
    for name, lowest in least.items():
        value, kind = getattr(owner, name), type(owner).__annotations__[name]
        fits = isinstance(value, int if kind is int else (int, float)) and not isinstance(value, bool)
        if not fits or not lowest <= value <= most:
            numbers = "whole numbers" if kind is int else "numbers"
            raise UserError(f"{name} is {value!r}; allowed are {numbers} from {lowest:g} to {most:,g}")


def choose(kind: str, name: str, allowed: Iterable[str]) -> str:
    """Return `name` if it is allowed; otherwise raise UserError naming the nearest allowed one, or all of them."""
    allowed = list(allowed)
    if name in allowed:
        return name
    words = [str(value) for value in allowed]
    near = get_close_matches(name, words, n=1) if isinstance(name, str) else []
    hint = f"did you mean {near[0]!r}?" if near else f"allowed: {', '.join(words)}"
    raise UserError(f"unknown {kind} {name!r}; {hint}")
