"""The adapter to DVC, which alone decides whether a stage needs to run."""

from apprentice.versioning.dvc import StageFailed, StageRun, changed_stages, output_hash, output_hashes
from apprentice.versioning.folder import check_folder

__all__ = ["StageFailed", "StageRun", "changed_stages", "check_folder", "output_hash", "output_hashes"]
