"""The errors of the library. Those meant for users say what is wrong, where, and what to do."""

from enum import IntEnum
from pathlib import Path


class ApprenticeError(Exception):
    """An error that the user can fix. The command line prints its message without a traceback and exits with code 2.

    Args:
        what: what is wrong, in one sentence.
        where: the file, `file:line` or parameter that is wrong.
        todo: what the user can do to fix it.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, todo: str | None = None):
        self.what, self.where, self.todo = what, where, todo
        place = f"{where}: " if where else ""
        advice = f"\n  What to do: {todo}" if todo else ""
        super().__init__(f"{place}{what}{advice}")


class InfrastructureFault(Exception):
    """A failure around the agent, such as a server or the network.

    It never counts as the agent's failure: the episode is retried and then quarantined.
    """


class PolicyUnavailable(InfrastructureFault):
    """The policy server cannot be reached, or stopped answering."""


class ExitCode(IntEnum):
    """Exit codes of the commands, the stages and the flow."""

    FAILED = 1
    """An unexpected failure: neither an error that the user can fix nor a transient fault."""
    USER_ERROR = 2
    """An error that the user can fix."""
    FAULT = 3
    """The infrastructure failed; another attempt may succeed."""
    INTERRUPTED = 130
    UNREAD = 141
    """The reader of the output has gone (`| head`); shells use this code for a command that SIGPIPE ended."""
