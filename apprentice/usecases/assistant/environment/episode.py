"""Records of AppWorld episodes, as the client of the engine returns them."""

from dataclasses import dataclass

from apprentice.errors import InfrastructureFault


@dataclass(frozen=True, slots=True)
class EpisodeLimits:
    """The resources that one episode may use."""

    timeout_s: int = 30
    """Seconds that one execution may take."""
    memory_mb: int = 256
    """MiB of the agent's code, beyond what Python has at its start."""
    cpu_s: int = 300
    """Processor seconds of the agent's code in one episode."""
    output_chars: int = 20_000
    """Characters of one execution's output; the middle of longer output is cut out."""
    templates: int = 8
    """Number of tasks that are held open, so that further episodes of them are forked instead of opened."""


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """The task as the agent sees it, and its difficulty."""

    task_id: str
    instruction: str
    first_name: str
    last_name: str
    email: str
    phone_number: str
    datetime: str
    """Time in the simulated world, in ISO format."""
    apps: tuple[str, ...]
    difficulty: int | None


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One request that reached the apps."""

    app: str
    api: str
    """Empty if no API has this address."""
    status: int
    """HTTP status."""
    ok: bool
    about: str = ""
    """The `app.api` or app whose documentation was requested; empty for other requests and unknown names."""
    within: tuple[str, ...] = ()
    """Functions kept from earlier tasks in which the request was made."""

    def __str__(self) -> str:
        """Return `app.api status`, as in `Turn.calls`; a look-up is `api_docs.show_api_doc(app.api) status`."""
        return f"{self.app}.{self.api}{f'({self.about})' if self.about else ''} {self.status}"


@dataclass(frozen=True, slots=True)
class Execution:
    """The result of one block of code."""

    output: str
    """Worded by AppWorld."""
    failed: bool
    completed: bool
    """Whether the agent has called `complete_task`, in this block or an earlier one."""
    killed: str | None
    """Why the episode was ended from outside; None while it runs."""
    api_calls: tuple[ApiCall, ...] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The results of AppWorld's tests on the databases of a finished episode."""

    success: bool
    passes: int
    tests: int
    failures: tuple[str, ...]


class WorldDied(InfrastructureFault):
    """A process of the engine ended or did not answer, for a reason that is not the agent's."""
