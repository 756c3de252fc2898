"""The loop of online reinforcement learning: simulate, update, sync the weights; it resumes from a checkpoint."""

import asyncio
import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apprentice.config.schema import TrainConfig
from apprentice.data.trajectories import checked
from apprentice.errors import ApprenticeError
from apprentice.learning.checkpoint import CheckpointStore
from apprentice.learning.ppo import PpoLearner
from apprentice.learning.publishing import unnamed_file
from apprentice.online.alarms import MAX_CONSECUTIVE, fault_alarms, update_alarms
from apprentice.online.collection import collect
from apprentice.online.replay import Replay
from apprentice.online.sampler import TaskSampler
from apprentice.online.sequential_rollout import SequentialRollout
from apprentice.policy.protocol import Policy
from apprentice.records import Skill, SkillLibrary, Trajectory
from apprentice.records.events import Progress
from apprentice.records.tables import write_trajectories
from apprentice.rollout.metrics import rollout_metrics
from apprentice.rollout.simulator import Simulator, plan_episodes

Row = dict[str, float]
"""The metrics of a step."""


@dataclass(frozen=True)
class Batch:
    """The episodes of a step."""

    trajectories: list[Trajectory]
    counts: Row
    """Numbers of faults and of trajectories that are left out."""
    seconds: float
    """Duration of the rollout."""
    seconds_sampling: float
    """The part of `seconds` in which the policy was sampling."""


class OnlineTraining:
    """A training run: a learner and a simulator that share a policy.

    Args:
        config: the `train` section.
        learner: holds actor, critic and reference.
        simulator: plays episodes with `policy`.
        policy: receives the learner's weights after each update.
        sampler: selects the tasks of each step.
        store: checkpoints to resume from.
        start: checkpoint of the starting policy.
        folder: receives the batches of updates that raised an alarm.
        progress: receives the metrics of each step.
        library: skills that sequential rollout adds to; part of the checkpoints.
    """

    def __init__(
        self,
        config: TrainConfig,
        learner: PpoLearner,
        simulator: Simulator | SequentialRollout,
        policy: Policy,
        sampler: TaskSampler,
        store: CheckpointStore,
        start: Path,
        folder: Path,
        progress: Progress,
        library: SkillLibrary | None = None,
    ):
        self._config, self._learner, self._simulator, self._policy = config, learner, simulator, policy
        self._sampler, self._store, self._start, self._folder, self._progress = sampler, store, start, folder, progress
        self._replay, self._library = Replay(config.replay), library if library is not None else SkillLibrary()
        self._consecutive_alarms = 0
        self._exchange: Path
        self._ahead: asyncio.Task[Batch] | None = None
        self._writing: asyncio.Task[None] | None = None
        self.quarantine: list[dict] = []
        """The episodes that were left out of the updates, with their step and the reasons."""

    async def run(self, seed_trajectories: Sequence[Trajectory]) -> list[Row]:
        """Trains to the last step.

        Args:
            seed_trajectories: trajectories of the starting policy, for the critic's warm-up.

        Returns:
            The metrics of every step, including those before an interruption.
        """
        with unnamed_file() as self._exchange:
            return await self._run(seed_trajectories)

    async def _run(self, seed_trajectories: Sequence[Trajectory]) -> list[Row]:
        rows = self._resume()
        if rows is None:
            rows = []
            if seed_trajectories:
                self._warm_up(seed_trajectories)
            self._begin_checkpoint(rows)  # the first steps roll back to it
        elif rows:
            await self._sync(version=len(rows))
        self._progress.advance("training", len(rows), self._config.steps)
        try:
            for step in range(len(rows), self._config.steps):
                rows.append(await self._step(step, rows))
                self._progress.metrics(step, rows[-1])
                self._progress.advance("training", step + 1, self._config.steps)
                if self._checkpoint_after(step):
                    self._begin_checkpoint(rows)
        finally:
            await self._end_ahead()
            await self._end_checkpoint()
        return rows

    def _warm_up(self, seed_trajectories: Sequence[Trajectory]) -> None:
        """Fits the critic, if there is one, and reports its quality."""
        if metrics := self._learner.warm_up_critic(seed_trajectories):
            fit = f"{metrics['epochs']:.0f} epochs on {metrics['trajectories']:.0f} trajectories"
            self._progress.note(f"critic: explained variance {metrics['explained_variance']:.2f} on held-out trajectories, after {fit}")

    async def _step(self, step: int, earlier: Sequence[Row]) -> Row:
        started = time.monotonic()
        ahead, self._ahead = self._ahead, None
        batch = await (ahead or self._simulate(step))
        simulated = time.monotonic()
        await self._end_checkpoint()
        written = time.monotonic()
        remembered = self._replay.additions(batch.trajectories, step)
        self._replay.note(batch.trajectories)
        learned_from = [*batch.trajectories, *remembered]
        metrics = await self._update(learned_from, step)
        rollout_metrics = {**_rollout_metrics(batch.trajectories, step, batch.seconds), **batch.counts}
        alarms = [*update_alarms(metrics, self._config), *fault_alarms(rollout_metrics, earlier)]
        alarm = self._roll_back(alarms, learned_from, step)
        updated = time.monotonic()
        if self._ahead is not None:
            # Weights must not change within an episode. The next step raises its errors.
            await asyncio.wait([self._ahead])
        waited = time.monotonic()
        await self._sync(version=step + 1)
        synced = time.monotonic()
        seconds = {
            "seconds_rollout": batch.seconds,
            "seconds_sampling": batch.seconds_sampling,
            "seconds_environment": batch.seconds - batch.seconds_sampling,
            "seconds_checkpoint": written - simulated,
            "seconds_learn": updated - written,
            "seconds_wait": waited - updated,
            "seconds_sync": synced - waited,
            "seconds_step": synced - started,
        }
        return {
            "step": step,
            **rollout_metrics,
            **metrics,
            **seconds,
            "replayed": len(remembered),
            "alarm": alarm,
        }

    async def _update(self, trajectories: list[Trajectory], step: int) -> Row:
        """Runs the learner's update; with `train.overlap`, the episodes of the next step are played meanwhile."""
        if not self._config.overlap or step + 1 == self._config.steps or self._checkpoint_after(step):
            await self._policy.sleep()
            return self._learner.update(trajectories, step)
        self._ahead = asyncio.create_task(self._simulate(step + 1))
        return await asyncio.to_thread(self._learner.update, trajectories, step)

    async def _end_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.gather(self._ahead, return_exceptions=True)

    def _begin_checkpoint(self, rows: list[Row]) -> None:
        """Starts to write a checkpoint in the background; its contents do not change before the next update."""
        state = copy.deepcopy(self._state(rows))
        self._writing = asyncio.create_task(asyncio.to_thread(self._store.save, len(rows), self._save, state))

    async def _end_checkpoint(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            await writing

    def _checkpoint_after(self, step: int) -> bool:
        return (step + 1) % self._config.checkpoint_every == 0 and step + 1 < self._config.steps

    async def _simulate(self, step: int) -> Batch:
        """Plays the episodes of a step."""
        started, sampled = time.monotonic(), self._simulator.sampling.seconds
        tasks = self._sampler.tasks(step)
        episodes = [episode for task in tasks for episode in plan_episodes([task], self._sampler.attempts(task), self._config.seed, tag=f"step{step}")]
        collected = await collect(self._simulator, episodes, self._config.tasks_per_step, self._config.mixed_groups_only)
        valid, refused = checked(collected.chosen, collected.faults)
        self._sampler.note([*valid, *collected.others])
        self.quarantine += [{"step": step, **row} for row in refused]
        if not valid:
            raise ApprenticeError(f"every trajectory was refused; the first: {refused[0]['problems'][0]}", where=f"train, step {step}")
        left_out = {"quarantined": len(collected.chosen) - len(valid), "passed_over": len(collected.others), "unfinished_groups": collected.unfinished}
        chain_metrics = self._simulator.metrics if isinstance(self._simulator, SequentialRollout) else {}
        counts = {"faults": len(collected.faults), **left_out, **chain_metrics}
        return Batch(valid, counts, time.monotonic() - started, self._simulator.sampling.seconds - sampled)

    async def _sync(self, version: int) -> None:
        self._learner.publish(self._exchange)
        await self._policy.load(self._start, version, self._exchange)

    def _roll_back(self, alarms: list[str], batch: list[Trajectory], step: int) -> float:
        """Undoes an update that raised an alarm, and keeps its batch.

        Args:
            alarms: the reasons; empty if the update is sound.
            batch: the trajectories that the update learned from.
            step: its index.

        Returns:
            The number of consecutive steps with an alarm, 0 if there is none.

        Raises:
            ApprenticeError: there were MAX_CONSECUTIVE of them.
        """
        self._consecutive_alarms = self._consecutive_alarms + 1 if alarms else 0
        if alarms:
            folder, state = self._store.latest()
            self._learner.load_state(folder)
            kept = self._folder / "alarms" / f"step{step}.parquet"
            write_trajectories(kept, batch)
            self._progress.note(f"step {step}: {'; '.join(alarms)}; restored the weights after step {len(state['rows'])}; the batch is kept in {kept}")
            if self._consecutive_alarms == MAX_CONSECUTIVE:
                todo = "lower train.learning_rate, inspect the batches, or raise the limit (train.alarm_…)"
                raise ApprenticeError(f"{MAX_CONSECUTIVE} consecutive updates raised an alarm: {'; '.join(alarms)}", where=f"train, step {step}", todo=todo)
        return float(self._consecutive_alarms)

    def _state(self, rows: list[Row]) -> dict:
        skills = [skill.model_dump() for skill in self._library]
        return {"rows": rows, "quarantine": self.quarantine, "counts": self._sampler.counts, "skills": skills}

    def _save(self, folder: Path) -> None:
        self._learner.save_state(folder)
        self._replay.save(folder)

    def _resume(self) -> list[Row] | None:
        found = self._store.latest()
        if found is None:
            return None
        folder, state = found
        self._learner.load_state(folder)
        self._replay.load(folder)
        self._sampler.counts = state["counts"]
        self.quarantine = state["quarantine"]
        self._library.add(Skill(**row) for row in state["skills"])
        self._consecutive_alarms = int(state["rows"][-1]["alarm"]) if state["rows"] else 0
        self._progress.note(f"continues from step {len(state['rows'])}")
        return state["rows"]


def _rollout_metrics(trajectories: Sequence[Trajectory], version: int, seconds: float) -> Row:
    """The metrics of a step's episodes. Staleness is counted in policy versions."""
    sampled = sum(trajectory.action_tokens for trajectory in trajectories)
    staleness = [version - trajectory.version for trajectory in trajectories]
    return {
        **rollout_metrics(trajectories),
        "staleness_mean": sum(staleness) / len(staleness),
        "staleness_max": max(staleness),
        "sampled_tokens_per_second": sampled / seconds,
    }
