"""A policy over HTTP: vLLM's completions endpoint, with token ids in and out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx

from apprentice.errors import ApprenticeError, PolicyUnavailable
from apprentice.policy.endpoint import Endpoint
from apprentice.policy.postmortem import root_cause
from apprentice.policy.protocol import Completion, Sampling
from apprentice.policy.rwlock import RWLock
from apprentice.policy.server import SERVED_NAME

CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 900.0
"""Time-out of one request, which includes its time in the server's queue."""
MAX_CONNECTIONS = 2048
KEEPALIVE_S = 2.0
"""Shorter than the server's own time-out (5 s), so that no request uses a connection that the server is closing."""
RESET_ATTEMPTS = 50
RESET_PAUSE_S = 0.2
MAX_REVIVALS = 3
Revive = Callable[[], Awaitable[Endpoint]]
"""Makes sure that a server runs, and returns its address."""


class VllmPolicy:
    """One vLLM server as a policy (protocol `Policy`).

    Args:
        endpoint: the server's address.
        revive: called if the server has ended; the client then loads the last checkpoint again and repeats the request
            once. Without it, the client raises PolicyUnavailable at once.
        log: the server's log, from which an error quotes why the server ended.
        sleeps: whether the server frees its GPU memory on `sleep`.
    """

    def __init__(self, endpoint: Endpoint, *, revive: Revive | None = None, log: Path | None = None, sleeps: bool = False):
        self._revive, self._log, self._sleeps, self._weights_lock = revive, log, sleeps, RWLock()
        self._client = _client(endpoint)
        self._outages = 0
        self._checkpoint: Path | None = None
        self._changed: Path | None = None
        self._synced: Path | None = None  # the checkpoint whose weights the server has, apart from the changed ones
        self.version = 0

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        """Complete the prompt `token_ids` (see `Policy.generate`).

        Raises:
            PolicyUnavailable: the server has ended or does not answer.
            ApprenticeError: the server refuses the request, for example because it exceeds the context length.
        """
        outages = self._outages
        try:
            return await self._complete(token_ids, sampling)
        except PolicyUnavailable:
            if self._revive is None:
                raise
        async with self._weights_lock.writing():
            await self._restart(outages)
        return await self._complete(token_ids, sampling)

    async def load(self, checkpoint: Path, version: int, changed: Path | None = None) -> None:
        """Replace the weights (see `Policy.load`) after the requests in flight, and before any later one.

        If the server already has the checkpoint, it only reads the changed weights.

        Raises:
            PolicyUnavailable: the server has ended, or did not take the weights.
            ApprenticeError: the folder contains no safetensors files.
        """
        checkpoint = _with_weights(checkpoint.resolve())
        async with self._weights_lock.writing():
            outages = self._outages
            self._checkpoint, self._changed, self.version = checkpoint, changed, version
            try:
                await self._sync()
            except PolicyUnavailable:
                await self._restart(outages)

    async def sleep(self) -> None:
        """Free the GPU memory until the next `load` (see `Policy.sleep`), after the requests in flight.

        Raises:
            PolicyUnavailable: the server has ended, and this client has no `revive`; with it, the next `load` restarts
                the server.
        """
        if not self._sleeps:
            return
        async with self._weights_lock.writing():
            self._synced = None
            try:
                await self._post("/sleep?level=2", None)
            except PolicyUnavailable:
                if self._revive is None:
                    raise

    async def close(self) -> None:
        """Close the connections; the server keeps running."""
        await self._client.aclose()

    async def _complete(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        async with self._weights_lock.reading():
            version = self.version
            answer = await self._post("/v1/completions", _request(token_ids, sampling, version))
        choice = answer["choices"][0]
        return Completion(tuple(choice["token_ids"]), _logprobs(choice), choice["finish_reason"], version)

    async def _restart(self, outages: int) -> None:
        """Restart the server with the current weights, once for all requests that failed in the same outage."""
        if self._outages != outages:
            return
        if self._revive is None or self._outages == MAX_REVIVALS:
            cause = f"; root cause: {root_cause(self._log)}" if self._log else ""
            raise PolicyUnavailable(f"the policy server ended after {self._outages} restarts{cause}")
        self._outages += 1
        endpoint = await self._revive()
        await self._client.aclose()
        self._client = _client(endpoint)
        self._synced = None
        if self._checkpoint is not None:
            await self._sync()

    async def _sync(self) -> None:
        """Send the weights, reset the prefix cache, and check that every worker reports the version.

        A sleeping server allocates memory for weights before it takes them, and memory for its cache afterwards.
        """
        only_changed = self._changed is not None and self._synced == self._checkpoint
        sources = [str(source) for source in (None if only_changed else self._checkpoint, self._changed) if source is not None]
        expected, self._synced = {"version": self.version, "sources": sources}, None
        asleep = self._sleeps and (await self._get("/is_sleeping"))["is_sleeping"]
        if asleep:
            await self._post("/wake_up?tags=weights", None)
        await self._call("sync_weights", str(self.version), *sources)
        if asleep:
            await self._post("/wake_up?tags=kv_cache", None)
        await self._reset_prefix_cache()
        reported = await self._call("policy_version")
        if any(worker != expected for worker in reported):
            raise PolicyUnavailable(f"the policy server did not take version {self.version}: it reports {reported}")
        self._synced = self._checkpoint

    async def _reset_prefix_cache(self) -> None:
        """Reset the prefix cache; the server refuses as long as it is still aborting a cancelled request."""
        for _ in range(RESET_ATTEMPTS):
            if (await self._post("/reset_prefix_cache", None))["success"]:
                return
            await asyncio.sleep(RESET_PAUSE_S)
        raise PolicyUnavailable("the policy server did not reset its prefix cache")

    async def _call(self, method: str, *arguments: str) -> list[dict]:
        return (await self._post("/collective_rpc", {"method": method, "args": list(arguments)}))["results"]

    async def _post(self, path: str, body: dict | None) -> dict:
        return await self._ask("POST", path, body)

    async def _get(self, path: str) -> dict:
        return await self._ask("GET", path, None)

    async def _ask(self, method: str, path: str, body: dict | None) -> dict:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise PolicyUnavailable(f"the policy server does not answer ({type(error).__name__}: {error})") from error
        if response.status_code == 400:
            raise ApprenticeError(f"the policy server refused a request: {_message(response)}", where="policy")
        if response.status_code != 200:
            raise PolicyUnavailable(f"the policy server answered {path} with {response.status_code}: {_message(response)}")
        return response.json()


def _client(endpoint: Endpoint) -> httpx.AsyncClient:
    return endpoint.client(
        timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEPALIVE_S),
    )


def _request(token_ids: Sequence[int], sampling: Sampling, version: int) -> dict:
    """Return the body of a completion request.

    It sets every parameter that the model's generation config could change. The salt keeps cached keys and values of
    older weights from being reused.
    """
    return {
        "model": SERVED_NAME,
        "prompt": list(token_ids),
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "seed": sampling.seed,
        "stop": list(sampling.stop),
        "stop_token_ids": list(sampling.stop_token_ids),
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "return_token_ids": True,
        "logprobs": 0,
        "cache_salt": f"v{version}",
    }


def _logprobs(choice: dict) -> tuple[float, ...]:
    """Return the log-probabilities, at most 0: rounding can make that of a certain token slightly positive."""
    return tuple(min(logprob, 0.0) for logprob in choice["logprobs"]["token_logprobs"])


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return response.text[:300]


def _with_weights(checkpoint: Path) -> Path:
    if not any(checkpoint.glob("*.safetensors")):
        raise ApprenticeError("contains no weights (*.safetensors)", where=checkpoint)
    return checkpoint
