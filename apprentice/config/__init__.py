"""params.yaml as typed, frozen models, and the file locations of each pipeline."""

from apprentice.config.layout import Layout
from apprentice.config.load import activate, check_overrides, load_pipeline, pipeline_names, set_overrides
from apprentice.config.schema import PipelineConfig

__all__ = ["Layout", "PipelineConfig", "activate", "check_overrides", "load_pipeline", "pipeline_names", "set_overrides"]
