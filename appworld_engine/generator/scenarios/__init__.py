"""All scenarios in the order in which they are generated.

The first scenario of every module comes first, then the second of every module, so that a short selection is mixed.
"""

from generator.scenarios import bills, files, mail, music, notes, payments, phone, shopping, todos
from generator.scene import REGISTRY, Scenario

__all__ = ["SCENARIOS"]

_MODULES = (music, payments, phone, files, notes, todos, shopping, bills, mail)


def _by_module() -> list[list[Scenario]]:
    return [[scenario for scenario in REGISTRY if scenario.build.__module__ == module.__name__] for module in _MODULES]


SCENARIOS = [scenarios[rank] for rank in range(max(map(len, _by_module()))) for scenarios in _by_module() if rank < len(scenarios)]
