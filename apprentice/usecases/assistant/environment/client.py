"""The client of the engine: opens thousands of AppWorld episodes, each in processes of its own, and has them judged.

    client = AppWorldClient(python, root, scratch)
    await client.start()
    world = await client.open(task_id, episode="e1")
    execution = await world.execute("print(apis.supervisor.show_profile())")
    judgement = await world.judge()

The agent's code is assumed to be hostile. It runs in a process that holds nothing but a socket to the apps (see
`appworld_engine/engine`). Whatever it does, the calls here return in time.
"""

import re
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path

from apprentice.errors import ApprenticeError
from apprentice.records.text import plain
from apprentice.usecases.assistant.environment.engine_process import EngineProcess, Isolation
from apprentice.usecases.assistant.environment.episode import ApiCall, EpisodeLimits, Execution, Judgement, TaskInfo, WorldDied
from apprentice.usecases.assistant.environment.link import Link

ANSWER_TIMEOUT_S = 60.0
"""For opening, flushing, and judging on a busy machine."""
GRACE_S = 10.0
"""Time that a world has beyond its own limit before it is killed."""
JUDGE_ATTEMPTS = 2
"""A judge that was killed from outside is no reason to fail an episode."""
EPISODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class World:
    """One episode."""

    def __init__(self, client: "AppWorldClient", task_id: str, episode: str, link: Link, info: TaskInfo, killed: str | None):
        self._client, self._link, self._killed = client, link, killed
        self.task_id, self.episode, self.info = task_id, episode, info

    async def execute(self, code: str, kept: Sequence[str] = ()) -> Execution:
        """Run one block. It ends a few seconds after the limit at the latest; a dead world answers at once.

        Args:
            code: the block.
            kept: names of functions that the block defines; later API calls report in which of these they were made.
        """
        if self._killed is None:
            limit = self._client.limits.timeout_s + GRACE_S
            try:
                answer = await self._link.ask({"op": "execute", "code": code, "kept": list(kept)}, limit)
            except WorldDied as error:
                self._killed = str(error)
                self._link.close()
            else:
                self._killed = answer["killed"]
                calls = tuple(ApiCall(*call, within=tuple(within)) for *call, within in answer["calls"])
                return Execution(plain(answer["output"]), answer["failed"], answer["completed"], self._killed, calls)
        return Execution("", True, False, self._killed)

    async def pid(self) -> int:
        """Return the world's process id, for measurements.

        Raises:
            WorldDied: the world's process ended.
        """
        return (await self._link.ask({"op": "who"}, ANSWER_TIMEOUT_S))["pid"]

    async def flush(self) -> None:
        """End the agent's code, write the databases for a judge, and end the world.

        Raises:
            WorldDied: the world's process ended before it had written everything.
        """
        try:
            await self._link.ask({"op": "flush"}, ANSWER_TIMEOUT_S)
        finally:
            self._link.close()

    async def judge(self) -> Judgement:
        """End the episode and judge it in a process that never met the agent's code. A killed episode has failed.

        Raises:
            WorldDied: the judge broke.
        """
        if self._killed is None:
            try:
                await self.flush()
            except WorldDied as error:
                self._killed = str(error)
        self._link.close()
        if self._killed is not None:
            return Judgement(False, 0, 1, (f"the episode was killed: {self._killed}",))
        self._killed = "judged"
        return await self._client.judge(self.task_id, self.episode)

    async def close(self) -> None:
        """End the episode's processes; safe to call twice."""
        self._killed = self._killed or "closed"
        self._link.close()
        shutil.rmtree(self._client.outputs / self.episode, ignore_errors=True)


class AppWorldClient:
    """Runs an engine and opens episodes in it. All of its processes end with this process, even after SIGKILL."""

    def __init__(
        self,
        python: Path,
        root: Path,
        scratch: Path,
        *,
        limits: EpisodeLimits = EpisodeLimits(),  # noqa: B008 (frozen)
        isolation: Isolation = "full",
    ):
        """Configure the engine without starting it.

        Args:
            python: the interpreter of .venv-appworld.
            root: an AppWorld data root.
            scratch: a folder for the files of episodes, which the client creates and empties.
        """
        self._root, self.limits = Path(root).absolute(), limits
        self._engine = EngineProcess(Path(python).absolute(), self._root, Path(scratch).absolute(), limits, isolation)

    @property
    def outputs(self) -> Path:
        """The folder into which episodes flush their databases."""
        return self._engine.outputs

    @property
    def pid(self) -> int | None:
        """Process id of the zygote; None before the start."""
        return self._engine.pid

    @property
    def supervisor_pid(self) -> int | None:
        """Process id of the engine's topmost process; None if the engine is not running."""
        return self._engine.supervisor_pid

    @property
    def missing_layers(self) -> tuple[str, ...]:
        """Layers of isolation that this machine does not allow; empty with full isolation."""
        return self._engine.missing_layers

    async def start(self) -> None:
        """Start the engine, which takes about ten seconds.

        Raises:
            ApprenticeError: AppWorld is missing or has another version, or the data root or full isolation is missing.
        """
        await self._engine.start()

    async def close(self) -> None:
        """End every process of the engine and remove its files."""
        await self._engine.close()

    async def open(self, task_id: str, episode: str) -> World:
        """Open a new episode of a task.

        Raises:
            ApprenticeError: there is no such task, or its data cannot be read.
            WorldDied: the engine broke.
        """
        if not EPISODE.fullmatch(episode):
            raise ApprenticeError(f"an episode cannot be named {episode!r}", todo="use letters, digits, dots, dashes, and underscores")
        if not EPISODE.fullmatch(task_id) or not (self._root / "data" / "tasks" / task_id / "specs.json").is_file():
            raise ApprenticeError(f"there is no task {task_id!r}", where=self._root, todo="choose one that its data/datasets/*.txt list")
        link = await self._engine.connect({"op": "open", "task": task_id, "episode": episode})
        try:
            answer = await link.receive(ANSWER_TIMEOUT_S)
        except BaseException:
            link.close()
            raise
        if "error" in answer:
            link.close()
            raise ApprenticeError(f"task {task_id} cannot be opened: {answer['error']}", where=self._root, todo="generate or download the data again")
        info = answer["info"]
        about = TaskInfo(task_id, info["instruction"], **info["supervisor"], datetime=info["datetime"], apps=tuple(info["apps"]), difficulty=info["difficulty"])
        return World(self, task_id, episode, link, about, answer["killed"])

    async def judge(self, task_id: str, episode: str) -> Judgement:
        """Judge the databases that a world has flushed, in a new process, and remove them.

        If they cannot be judged, the episode has failed, provided that an untouched world of its task can be judged.

        Raises:
            WorldDied: the task's ground truth is missing or broken, or the engine ended.
        """
        try:
            for _attempt in range(JUDGE_ATTEMPTS):
                answer = await self._ask_judge(task_id, episode)
                if "error" not in answer:
                    return Judgement(answer["success"], answer["passes"], answer["tests"], tuple(answer["failures"]))
                if not (self.outputs / episode).is_dir():
                    raise WorldDied(f"{task_id} could not be judged: the episode's databases are gone")
        finally:
            shutil.rmtree(self.outputs / episode, ignore_errors=True)
        await self._check_ground_truth(task_id)
        return Judgement(False, 0, 1, (f"the episode's databases cannot be judged: {plain(answer['error'])}",))

    async def _check_ground_truth(self, task_id: str) -> None:
        """Judge a world in which no agent acted.

        Raises:
            WorldDied: it cannot be judged.
        """
        world = await self.open(task_id, uuid.uuid4().hex)
        try:
            await world.flush()
            answer = await self._ask_judge(task_id, world.episode)
        finally:
            await world.close()
        if "error" in answer:
            raise WorldDied(f"{task_id} could not be judged: {answer['error']}")

    async def _ask_judge(self, task_id: str, episode: str) -> dict:
        """Return the answer of one judge, or `{"error": reason}` if it ended without an answer."""
        link = await self._engine.connect({"op": "judge", "task": task_id, "episode": episode})
        try:
            return await link.receive(ANSWER_TIMEOUT_S)
        except WorldDied as error:
            return {"error": str(error)}
        finally:
            link.close()
