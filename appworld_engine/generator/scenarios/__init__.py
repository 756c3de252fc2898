"""The scenarios, in the order in which they are generated: one of each room, then the second of each, so that a short cut is mixed."""

from generator.scenarios import bills, files, mail, music, notes, payments, phone, shopping, todos
from generator.scene import REGISTRY, Scenario

__all__ = ["SCENARIOS"]

_ROOMS = (music, payments, phone, files, notes, todos, shopping, bills, mail)


def _rooms() -> list[list[Scenario]]:
    return [[scenario for scenario in REGISTRY if scenario.build.__module__ == room.__name__] for room in _ROOMS]


SCENARIOS = [room[rank] for rank in range(max(map(len, _rooms()))) for room in _rooms() if rank < len(room)]
