"""DVC, and nothing but DVC, decides whether a stage's work is already done."""

from apprentice.versioning.dvc import STAGES, StageFailed, StageRun, changed_stages, output_hash, output_hashes

__all__ = ["STAGES", "StageFailed", "StageRun", "changed_stages", "output_hash", "output_hashes"]
