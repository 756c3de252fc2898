"""The use cases that ship with Apprentice, one package each. `environment.use` selects one of them or your own."""

SHIPPED = {
    "deepsearch": "apprentice.usecases.deepsearch.usecase:DeepSearch",
    "assistant": "apprentice.usecases.assistant.usecase:Assistant",
}
"""Value of `environment.use` -> `module:Class`."""
