"""Opens the policy that a pipeline's parameters name, with the weights of a checkpoint, and closes what it opened."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from apprentice.config.layout import Layout
from apprentice.config.schema import PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.policy.endpoint import Endpoint
from apprentice.policy.models import base_model
from apprentice.policy.protocol import Policy
from apprentice.policy.server import STATE, PolicyServer
from apprentice.processes.file_lock import locked

LOG = "policy-server.log"


@asynccontextmanager
async def open_policy(config: PipelineConfig, layout: Layout, checkpoint: Path, *, version: int = 0) -> AsyncIterator[Policy]:
    """The policy with the weights of `checkpoint`.

    With vLLM, a server that runs already is used and left running; else one is started and stopped. Where the server dies, one is
    started in its place with the weights loaded last.

    Raises:
        ApprenticeError: no server can be started, or another process is using the one that runs.
    """
    if config.policy.engine == "transformers":
        from apprentice.policy.transformers_engine import TransformersPolicy

        policy = TransformersPolicy(checkpoint, max_sequences=config.policy.max_sequences, version=version)
        try:
            yield policy
        finally:
            await policy.close()
        return
    with policy_server(config, layout) as server, _sole_use(server, layout):
        await asyncio.to_thread(server.wait)
        async with _connected(server, config.policy.sleep) as policy:
            await policy.load(checkpoint, version)
            yield policy


def policy_server(config: PipelineConfig, layout: Layout) -> PolicyServer:
    """The pipeline's policy server, not yet started: what a flow starts early and its stages attach to."""
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
    """A server has one set of weights: two processes that load different ones would answer for each other."""
    name = server.endpoint.name
    with ExitStack() as held:
        try:
            held.enter_context(locked((layout.root / STATE).with_name(f"policy-server-{name.replace(' ', '-')}.in-use"), wait=False))
        except BlockingIOError:
            raise ApprenticeError(
                f"another process is using the policy server ({name})",
                where="policy.port",
                todo=f"wait until it has ended, or give this pipeline a server of its own: policy.port={server.endpoint.another_port}",
            ) from None
        yield
