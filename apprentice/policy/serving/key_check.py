"""Middleware for a vLLM server on a TCP port, which refuses every request without the server's key.

vLLM's own `--api-key` protects only some of the routes. This folder is not a package, so vLLM's environment can import
this module without importing Apprentice.
"""

import os
import secrets

KEY_VARIABLE = "APPRENTICE_POLICY_KEY"
REFUSAL = b'{"error": {"message": "the key is missing or wrong"}}'


class RequireKey:
    """ASGI middleware (`--middleware`) that answers 401 to every request without `Authorization: Bearer <key>`."""

    def __init__(self, app):
        self._app = app
        self._expected = b"Bearer " + os.environ[KEY_VARIABLE].encode()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan" or self._presented(scope):
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": REFUSAL})

    def _presented(self, scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and secrets.compare_digest(given[0], self._expected)
