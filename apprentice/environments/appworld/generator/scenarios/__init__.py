"""The scenarios, in the order in which they are generated; importing a module registers those it holds."""

from ..scene import REGISTRY
from . import music, payments

__all__ = ["SCENARIOS"]

_ROOMS = (music, payments)
_ORDER = [room.__name__ for room in _ROOMS]

SCENARIOS = sorted(REGISTRY, key=lambda scenario: _ORDER.index(scenario.build.__module__))
