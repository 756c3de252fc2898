"""A function that the agent keeps for later tasks."""

from apprentice.records.record import Record, Text


class Skill(Record):
    """One function and the scenario that it belongs to."""

    scenario: Text
    """The scenario of the task that it was written for; the other tasks of the scenario are offered it."""
    name: Text
    signature: Text
    """Its signature, such as `pages(api, limit=20)`."""
    description: Text
    code: Text
    """Its definition in Python."""
