"""Which tasks a training step is made of: a seeded shuffle of the curriculum, over and over. Stateless, so resuming needs no state."""

import random
from collections.abc import Sequence

from apprentice.records import Task


def tasks_of_step(curriculum: Sequence[Task], step: int, count: int, seed: int) -> list[Task]:
    """The `count` tasks of step number `step` (from 0). Every task is used once before any is used again."""
    chosen = []
    for index in range(step * count, (step + 1) * count):
        epoch, position = divmod(index, len(curriculum))
        order = list(range(len(curriculum)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        chosen.append(curriculum[order[position]])
    return chosen
