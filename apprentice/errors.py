"""The errors that a person is meant to read: each says what was wrong, where, and what to do."""

from enum import IntEnum
from pathlib import Path


class ApprenticeError(Exception):
    """A fault the user can mend. The command line prints it as one message, without a traceback, and exits with 2.

    Args:
        what: what is wrong, in one sentence.
        where: the file, `file:line` or parameter in which it was found.
        todo: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, todo: str | None = None):
        self.what, self.where, self.todo = what, where, todo
        place = f"{where}: " if where else ""
        advice = f"\n  What to do: {todo}" if todo else ""
        super().__init__(f"{place}{what}{advice}")


class InfrastructureFault(Exception):
    """Something around the agent broke (a server, the network). Never the agent's failure: retried, then quarantined."""


class PolicyUnavailable(InfrastructureFault):
    """The policy server cannot be reached, or stopped answering."""


class ExitCode(IntEnum):
    """Exit codes of the commands, the stages and the flow."""

    FAILED = 1
    """Something failed that is neither the user's to mend nor a passing fault."""
    USER_ERROR = 2
    FAULT = 3
    """The infrastructure failed; another attempt may succeed."""
    INTERRUPTED = 130
    UNREAD = 141
    """Nobody reads the output any longer (`| head`); a shell reports the same of a command that SIGPIPE ended."""
