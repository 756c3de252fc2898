"""The stages of a pipeline, one module each: `run(config, layout, progress)`."""
