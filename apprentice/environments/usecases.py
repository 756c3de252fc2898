"""Which environment a pipeline names, with what it works on."""

from apprentice.config import Layout, PipelineConfig
from apprentice.environments.protocol import UseCase


def use_case(config: PipelineConfig, layout: Layout) -> UseCase:
    """The use case of `environment.use`."""
    if config.environment.use == "appworld":
        from apprentice.environments.appworld.usecase import Assistant

        return Assistant(config.environment, layout)
    from apprentice.environments.deepsearch.usecase import Search

    return Search(config.environment, layout)
