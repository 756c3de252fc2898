"""A function that the agent kept for later tasks."""

from apprentice.records.record import Record, Text


class Skill(Record):
    """One function."""

    scenario: Text
    """Of the task that it was written for: it is offered to the others."""
    name: Text
    signature: Text
    """Such as `pages(api, limit=20)`."""
    description: Text
    code: Text
    """Its definition."""
