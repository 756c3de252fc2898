"""The personal assistant: an agent that writes blocks of Python and reads their output until the task is done."""

import re
import uuid
from collections.abc import Sequence

from apprentice.environments.protocol import ERROR, MALFORMED, Observation
from apprentice.records import Skill, Task, Trajectory, Verdict
from apprentice.usecases.assistant.config import AppWorldConfig
from apprentice.usecases.assistant.environment.client import AppWorldClient, World
from apprentice.usecases.assistant.environment.episode import Execution, TaskInfo
from apprentice.usecases.assistant.environment.skills import notice, prelude, skills_of

BLOCK = re.compile(r"^[ \t]*```(?P<language>\w*)[ \t]*\n(?P<code>.*?)(?:```|\Z)", re.DOTALL | re.MULTILINE)
PYTHON = ("", "python", "py")
"""Languages of the blocks that are run."""
ADVICE = "Write one block of Python: ```python, the code, ```."
ONLY_FIRST = "Only your first block was run: write one a message."
CODE, COMPLETE, KILLED = "code", "complete", "killed"
"""Kinds of actions: code that ran, reported the task as done, or was killed. Code that raised is an `ERROR`."""
PROMPT = """\
You are my assistant. Do my task with Python: in each message write one block, ```python ... ```. I run it and show you what it prints; variables stay.
Apps are called as apis.app.api(name=value). How to use them:
apis.api_docs.show_app_descriptions()
apis.api_docs.show_api_descriptions(app_name="spotify")
apis.api_docs.show_api_doc(app_name="spotify", api_name="login")
apis.supervisor knows my profile and passwords. Lists come in pages: page_index from 0, page_limit up to 20.
When it is done: apis.supervisor.complete_task(), with answer=... if I asked for something.
{notice}I am {first_name} {last_name}, {email}, {phone_number}. It is {datetime}.
Task: {instruction}"""


def code_blocks(action: str) -> list[str]:
    """Return the non-empty fenced blocks of Python in a message; the last one may lack its closing fence."""
    blocks = ((match["language"].lower(), match["code"].rstrip()) for match in BLOCK.finditer(action))
    return [code for language, code in blocks if language in PYTHON and code]


def fenced(code: str) -> str:
    """Return a message that consists of one block."""
    return f"```python\n{code}\n```"


def opening(info: TaskInfo, notice: str = "") -> str:
    """Return the first user message: how to work, the notice about kept functions, for whom, and the task."""
    fields = ("first_name", "last_name", "email", "phone_number", "datetime", "instruction")
    return PROMPT.format(notice=f"{notice}\n" if notice else "", **{name: getattr(info, name) for name in fields})


class AppWorldEnvironment:
    """One episode in a world of its own, judged by AppWorld's checks of the databases."""

    stop: tuple[str, ...] = ()
    takes_cut_actions = False

    def __init__(self, client: AppWorldClient, config: AppWorldConfig):
        self._client, self._config = client, config
        self._world: World | None = None

    async def reset(self, task: Task) -> Observation:
        """Open the task's world.

        Raises:
            ApprenticeError: the data root has no such task.
            WorldDied: the engine broke.
        """
        self._world = await self._client.open(task.id, uuid.uuid4().hex)
        if not self._config.skills:
            return Observation(opening(self._world.info))
        await self._world.execute(prelude(task.skills), kept=[skill.name for skill in task.skills])
        return Observation(opening(self._world.info, notice(task.skills)))

    async def step(self, action: str) -> Observation:
        """Run the first block of a message."""
        blocks = code_blocks(action)
        if not blocks:
            return Observation(ADVICE, kind=MALFORMED)
        execution = await self._world.execute(blocks[0])
        kind, calls = _kind(execution), tuple(map(str, execution.api_calls))
        uses = {name for call in execution.api_calls if call.ok for name in call.within}
        text = execution.output.strip()
        return Observation(f"{text}\n{ONLY_FIRST}" if len(blocks) > 1 else text, kind in (COMPLETE, KILLED), kind, calls, tuple(sorted(uses)))

    async def verify(self) -> Verdict:
        """End the episode and run AppWorld's tests on its databases.

        Raises:
            WorldDied: the judge broke.
        """
        judgement = await self._world.judge()
        share = judgement.passes / judgement.tests if judgement.tests else 0.0
        return Verdict(judgement.success, share if self._config.reward == "tests" else float(judgement.success))

    async def close(self) -> None:
        """End the world's processes."""
        if self._world is not None:
            await self._world.close()


class KeptFunctions:
    """The agent's skills: functions that it marks and calls in later tasks."""

    def kept(self, task: Task, trajectory: Trajectory) -> list[Skill]:
        """Return the functions marked in blocks that ran to their end, in order."""
        ran = [turn.action for turn in trajectory.turns if turn.kind in (CODE, COMPLETE)]
        return [skill for action in ran for skill in skills_of(code_blocks(action)[0], task.scenario)]

    def used(self, skills: Sequence[Skill], trajectory: Trajectory) -> list[Skill]:
        """Return the skills that were executed and called an app successfully, according to the world."""
        names = {name for turn in trajectory.turns for name in turn.uses}
        return [skill for skill in skills if skill.name in names]


def _kind(execution: Execution) -> str:
    if execution.killed is not None:
        return KILLED
    if execution.completed:
        return COMPLETE
    return ERROR if execution.failed else CODE
