"""Many clients at once, each with a behaviour and dice of its own."""

import contextlib
import random
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

B = TypeVar("B", bound=Callable[..., None])

Visit = Callable[[random.Random, B, str], None]
"""One client: its dice, what it does, and the destination of its account."""


def storm(
    visit: Visit[B],
    behaviours: Sequence[tuple[int, B]],
    places: Sequence[str],
    count: int,
    atOnce: int,
) -> list[str]:
    """Run `count` clients, `atOnce` at a time; tells what went wrong.

    :param behaviours: each with its weight.
    """
    dice, wrong = random.Random(20250106), list[str]()
    weights, kinds = zip(*behaviours, strict=True)
    plan = [
        (random.Random(number), dice.choices(kinds, weights)[0], dice.choice(places))
        for number in range(count)
    ]

    def work() -> None:
        with contextlib.suppress(IndexError):
            while True:
                step = plan.pop()
                try:
                    visit(*step)
                except Exception as error:
                    wrong.append(f"{step[1].__name__} {step[2]}: {error!r}")

    threads = [threading.Thread(target=work) for _ in range(atOnce)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong
