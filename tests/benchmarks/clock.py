"""Time by turns: every side once, then every side once more, so that a slow minute of the machine meets all of them."""

import time
from collections.abc import Callable

import torch

MIN_ROUNDS = 3

Call = Callable[[int], object]


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds that one call takes, the device's own work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def by_turns(
    sides: dict[str, Call], rounds: int, budget: float, device: torch.device, tick: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each side in each round, after a round that does not count; each call is given the round's number.

    budget: seconds after which no new round begins, once there are three, or once there is one and it took three times
    as long.  `tick` is called after each call.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    began = time.monotonic()
    for number in range(rounds + 1):
        spent = time.monotonic() - began
        if number > 1 and spent > budget * (1 if number > MIN_ROUNDS else 3):
            break
        for name, call in sides.items():
            seconds = seconds_of(lambda: call(number), device)
            if number:
                found[name].append(round(seconds, 6))
            tick()
    return found
