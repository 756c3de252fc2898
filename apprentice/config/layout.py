"""Where each pipeline's files lie, relative to the project's root."""

from dataclasses import dataclass
from pathlib import Path

PARAMS = Path("params.yaml")
RUNTIME = Path(".apprentice")
"""Logs, checkpoints to resume from, caches: never versioned, safe to delete while nothing runs."""


@dataclass(frozen=True)
class Layout:
    """The files of one pipeline. Those under data/, models/ and reports/ are DVC's; those under .apprentice/ are not."""

    pipeline: str
    root: Path = Path()

    @property
    def data(self) -> Path:
        return self.root / "data" / self.pipeline

    @property
    def models(self) -> Path:
        return self.root / "models" / self.pipeline

    @property
    def reports(self) -> Path:
        return self.root / "reports" / self.pipeline

    @property
    def runtime(self) -> Path:
        return self.root / RUNTIME / self.pipeline

    @property
    def raw(self) -> Path:
        """prepare: tasks.jsonl and corpus.jsonl, a candidate record a line with the file and line it came from."""
        return self.data / "raw"

    @property
    def tasks(self) -> Path:
        """validate: the clean tasks."""
        return self.data / "tasks.parquet"

    @property
    def corpus(self) -> Path:
        """validate: the clean passages."""
        return self.data / "corpus.parquet"

    @property
    def quarantine(self) -> Path:
        """validate: refused records with reasons, one JSON object a line."""
        return self.data / "quarantine.jsonl"

    @property
    def data_docs(self) -> Path:
        """validate: Great Expectations' pages."""
        return self.reports / "data_docs"

    @property
    def curriculum(self) -> Path:
        """filter: the tasks to train on."""
        return self.data / "curriculum.parquet"

    @property
    def rollouts(self) -> Path:
        """rollout: the starting policy's trajectories."""
        return self.data / "rollouts.parquet"

    @property
    def rollout_quarantine(self) -> Path:
        """rollout: trajectories that break their contract, with reasons, one JSON object a line."""
        return self.data / "rollout_quarantine.jsonl"

    @property
    def train_quarantine(self) -> Path:
        """train: episodes that broke and trajectories that break their contract, with reasons, one JSON object a line."""
        return self.data / "train_quarantine.jsonl"

    @property
    def evaluations(self) -> Path:
        """evaluate: the trajectories behind the report, one Parquet file a condition."""
        return self.data / "evaluations"

    @property
    def warm_start(self) -> Path:
        """distill: the starting policy; a checkpoint, or base.json naming the base model where distill has no source."""
        return self.models / "warm_start"

    @property
    def policy(self) -> Path:
        """train: the trained policy."""
        return self.models / "policy"

    @property
    def skills(self) -> Path:
        """train: the skill library, beside the weights that wrote it; absent where nothing was kept."""
        return self.policy / "skills.jsonl"

    @property
    def report(self) -> Path:
        """evaluate: the page for people."""
        return self.reports / "report.html"

    @property
    def events(self) -> Path:
        """Every stage: its progress, one JSON object a line."""
        return self.runtime / "events.jsonl"

    @property
    def memory(self) -> Path:
        """The flow: the most memory seen during each stage, of all processes of the run together, in bytes."""
        return self.runtime / "memory.json"

    @property
    def checkpoints(self) -> Path:
        """distill, train: what they resume from."""
        return self.runtime / "checkpoints"

    def metrics(self, stage: str) -> Path:
        """The small, flat figures of a stage."""
        return self.reports / f"{stage}.json"

    def curves(self, stage: str) -> Path:
        """The figures of a stage step by step, as CSV."""
        return self.reports / f"{stage}.csv"
