"""The use cases that Apprentice ships, one package each. A use case of your own enters by the same door (`environment.use`)."""

SHIPPED = {
    "deepsearch": "apprentice.usecases.deepsearch.usecase:DeepSearch",
    "assistant": "apprentice.usecases.assistant.usecase:Assistant",
}
"""Names for `environment.use`, with the class that each one stands for."""
