"""The file locations of each pipeline, relative to the project's root."""

from dataclasses import dataclass
from pathlib import Path

PARAMS = Path("params.yaml")
RUNTIME = Path(".apprentice")
"""Folder of logs, resumable checkpoints, and caches. It is not versioned, and can be deleted while nothing runs."""


@dataclass(frozen=True)
class Layout:
    """The files of one pipeline. DVC tracks those under data/, models/, and reports/, but not those under
    .apprentice/."""

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
        """Written by prepare: tasks.jsonl and corpus.jsonl with one candidate per line, and source.json."""
        return self.data / "raw"

    @property
    def tasks(self) -> Path:
        """Written by validate: the clean tasks."""
        return self.data / "tasks.parquet"

    @property
    def corpus(self) -> Path:
        """Written by validate: the clean passages."""
        return self.data / "corpus.parquet"

    @property
    def quarantine(self) -> Path:
        """Written by validate: the rejected records with reasons, one JSON object per line."""
        return self.data / "quarantine.jsonl"

    @property
    def data_docs(self) -> Path:
        """Written by validate: Great Expectations' Data Docs."""
        return self.reports / "data_docs"

    @property
    def curriculum(self) -> Path:
        """Written by filter: the tasks to train on."""
        return self.data / "curriculum.parquet"

    @property
    def rollouts(self) -> Path:
        """Written by rollout: the starting policy's trajectories."""
        return self.data / "rollouts.parquet"

    @property
    def rollout_quarantine(self) -> Path:
        """Written by rollout: faults and invalid trajectories with reasons, one JSON object per line."""
        return self.data / "rollout_quarantine.jsonl"

    @property
    def train_quarantine(self) -> Path:
        """Written by train: faults and invalid trajectories with reasons, one JSON object per line."""
        return self.data / "train_quarantine.jsonl"

    @property
    def evaluations(self) -> Path:
        """Written by evaluate: the evaluated trajectories, one Parquet file per condition."""
        return self.data / "evaluations"

    @property
    def warm_start(self) -> Path:
        """Written by distill: the starting policy as a checkpoint; without a warm start, base.json, which names the
        base model."""
        return self.models / "warm_start"

    @property
    def policy(self) -> Path:
        """Written by train: the trained policy."""
        return self.models / "policy"

    @property
    def skills(self) -> Path:
        """Written by train: the skill library; absent if no skill was kept."""
        return self.policy / "skills.jsonl"

    @property
    def report(self) -> Path:
        """evaluate: the page for people."""
        return self.reports / "report.html"

    @property
    def events(self) -> Path:
        """Written by every stage: its progress, one JSON object per line."""
        return self.runtime / "events.jsonl"

    @property
    def memory(self) -> Path:
        """Written by the flow: the peak memory of all its processes during each stage, in bytes."""
        return self.runtime / "memory.json"

    @property
    def checkpoints(self) -> Path:
        """Written by distill and train: the checkpoints that they resume from."""
        return self.runtime / "checkpoints"

    def metrics(self, stage: str) -> Path:
        """Return the JSON file with the metrics of a stage."""
        return self.reports / f"{stage}.json"

    def curves(self, stage: str) -> Path:
        """Return the CSV file with the rows that a stage plots."""
        return self.reports / f"{stage}.csv"
