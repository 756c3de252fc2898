"""Creates the policy that a pipeline's parameters configure."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from apprentice.config.layout import Layout
from apprentice.config.schema import PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.policy.base_models import base_model
from apprentice.policy.endpoint import Endpoint
from apprentice.policy.protocol import Policy
from apprentice.policy.server import STATE, PolicyServer
from apprentice.processes.file_lock import locked

LOG = "policy-server.log"


@asynccontextmanager
async def open_policy(config: PipelineConfig, layout: Layout, checkpoint: Path, *, version: int = 0) -> AsyncIterator[Policy]:
    """Open the pipeline's policy with the weights of `checkpoint`, and close it at the end of the block.

    With vLLM, a running server is used and left running; otherwise one is started and stopped. A new server with the
    weights that were loaded last replaces one that dies.

    Raises:
        ApprenticeError: no server can be started, or another process is using the running one.
    """
    if config.policy.engine == "transformers":
        from apprentice.policy.transformers_engine import TransformersPolicy

        policy = TransformersPolicy(checkpoint, max_sequences=config.policy.max_sequences, version=version)
        try:
            yield policy
        finally:
            await policy.close()
        return
    with make_policy_server(config, layout) as server, _sole_use(server, layout):
        await asyncio.to_thread(server.wait)
        async with _connected(server, config.policy.sleep) as policy:
            await policy.load(checkpoint, version)
            yield policy


def make_policy_server(config: PipelineConfig, layout: Layout) -> PolicyServer:
    """Create the pipeline's policy server without starting it; a flow starts it early, and its stages attach to it."""
    return PolicyServer(config.policy, base_model(config.model.name), layout.runtime / LOG, state=layout.root / STATE)


@asynccontextmanager
async def _connected(server: PolicyServer, sleeps: bool) -> AsyncIterator[Policy]:
    from apprentice.policy.vllm_client import VllmPolicy

    async def revive() -> Endpoint:
        await asyncio.to_thread(server.revive)
        return server.endpoint

    policy = VllmPolicy(server.endpoint, revive=revive, log=server.log, sleeps=sleeps)
    try:
        yield policy
    finally:
        await policy.close()


@contextmanager
def _sole_use(server: PolicyServer, layout: Layout) -> Iterator[None]:
    """Refuse a second process: a server has one set of weights, and each process would get answers from the other's."""
    name = server.endpoint.name
    with ExitStack() as held:
        try:
            held.enter_context(locked((layout.root / STATE).with_name(f"policy-server-{name.replace(' ', '-')}.in-use"), wait=False))
        except BlockingIOError:
            raise ApprenticeError(
                f"another process is using the policy server ({name})",
                where="policy.port",
                todo=f"wait until it has ended, or give this pipeline its own server: policy.port={server.endpoint.suggested_port}",
            ) from None
        yield
