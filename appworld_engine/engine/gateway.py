"""Forwards an agent's requests to the apps, and to nothing else: neither the admin app nor the server's own routes.

The server's own routes control databases, clock, and seed. The apps' FastAPI application is called directly in this
thread, without an event loop. No thread is therefore alive when a world is forked, and there are no switches between
threads, which cause most of the cost of AppWorld's own test client.
"""

import functools
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from appworld.apps import build_main_app, get_all_apps
from appworld.common.utils import get_name_to_apis, import_apis_module

from engine.numbers import require_finite

ADMIN = "admin"
ERROR_CHARS = 10_000
"""Characters of an exception's text that the agent's code receives."""
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
HEADERS = frozenset({"authorization", "content-type"})
TARGET_LIMIT, WRITE_BUDGET = 1 << 16, 8 << 20
"""Bytes of a request's path and query, and of everything that the requests of an episode may write."""
CONSTANT_HEADERS = {"host": "testserver", "accept": "*/*", "accept-encoding": "gzip, deflate", "connection": "keep-alive", "user-agent": "testclient"}
"""Headers that AppWorld's own client sends with every request."""
HOST_HEADERS = tuple((name.encode(), value.encode()) for name, value in CONSTANT_HEADERS.items())


class Refused(Exception):
    """A request that AppWorld's client cannot make."""


@dataclass(frozen=True)
class Request:
    """A request that an interpreter may make."""

    method: str
    target: str
    """Encoded path and query."""
    headers: dict[str, str]
    body: str
    """One character per byte."""
    within: tuple[str, ...] = ()
    """Functions kept from earlier tasks in which, according to the interpreter, the request was made."""

    @property
    def writes(self) -> int:
        """Bytes that the request may leave in the databases."""
        return 0 if self.method == "GET" else len(self.target) + len(self.body)


@dataclass(frozen=True)
class Response:
    """The response to a request. `error` is (class, text) of an exception inside the app."""

    status: int
    headers: dict[str, str]
    body: str
    error: tuple[str, str] | None = None


@dataclass(frozen=True)
class Answer:
    """A response and the API that gave it; the names are empty if no API has this path."""

    response: Response
    app: str
    api: str


def read_request(message: object, kept: Collection[str] = ()) -> Request:
    """Parse a message of an interpreter as a request.

    Args:
        message: the untrusted message.
        kept: names of the functions that are available from earlier tasks.

    Raises:
        Refused
    """
    if not isinstance(message, list) or len(message) != 5:
        raise Refused("not five fields")
    method, target, headers, body, within = message
    if not (isinstance(method, str) and isinstance(target, str) and isinstance(headers, dict) and isinstance(body, str)):
        raise Refused("fields of the wrong kind")
    if method not in METHODS or not target.startswith("/") or len(target) > TARGET_LIMIT:
        raise Refused("method, path or size")
    if not set(headers) <= HEADERS or not all(isinstance(value, str) and len(value) <= TARGET_LIMIT for value in headers.values()):
        raise Refused("headers")
    if not target.isascii() or not all(map(_is_bytes, (body, *headers.values()))):
        raise Refused("characters")
    if not isinstance(within, list) or len(within) > len(kept) or not all(isinstance(name, str) and name in kept for name in within):
        raise Refused("functions that are not at hand")
    return Request(method, target, headers, body, tuple(within))


def _is_bytes(text: str) -> bool:
    """Return whether each character stands for one byte."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def public_apis() -> dict[str, dict[str, dict[str, str]]]:
    """Return the APIs that agents may call: app -> name of the API -> its path and method."""
    from appworld.api_docs import prepare_api_docs

    docs = {app: prepare_api_docs(app, include_private_apis=False) for app in sorted(get_all_apps(skip_admin=True))}
    return {app: {doc["api_name"]: {"path": doc["path"], "method": doc["method"]} for doc in entries} for app, entries in docs.items()}


class Gateway:
    """The apps, restricted to the APIs that an agent may call."""

    def __init__(self):
        self._apps = set(get_all_apps(skip_admin=True))
        self._application = build_main_app(sorted([*self._apps, ADMIN]))
        self._direct: dict[Callable, Callable] = {}
        self._public = {app: set(get_name_to_apis(app).values()) for app in self._apps}
        for app in self._apps:
            require_finite(import_apis_module(app).app.routes)
        self._names = {app: set(get_name_to_apis(app)) for app in self._apps}

    def documented_endpoint(self, request: Request) -> str:
        """Return the `app.api` or `app` whose documentation a request asks for; empty if nothing has that name."""
        asked = parse_qs(request.target.partition("?")[2])
        app, api = (asked.get(name, [""])[0] for name in ("app_name", "api_name"))
        if app not in self._names or (api and api not in self._names[app]):
            return ""
        return f"{app}.{api}" if api else app

    def answer(self, request: Request) -> Answer:
        """Call the API that the request names."""
        path, _, query = request.target.partition("?")
        path = unquote(path)
        app = path.split("/", 2)[1]
        if app not in self._apps:
            return Answer(_not_found(f"No app named '{app}' found."), "", "")
        route = self._route(app, request.method, path)
        if route is None:  # the app itself words the error
            return Answer(self._call(self._application, request, path, query), "", "")
        if route.endpoint not in self._public[app]:
            return Answer(_not_found(f"No API named '{path.split('/', 2)[-1]}' found in the {app} app."), "", "")
        if route.endpoint not in self._direct:
            self._direct[route.endpoint] = direct_application(import_apis_module(app).app, f"/{app}", route)
        return Answer(self._call(self._direct[route.endpoint], request, path, query), app, route.endpoint.__name__)

    @functools.lru_cache(maxsize=512)  # noqa: B019 (a gateway lives as long as its process)
    def _route(self, app: str, method: str, path: str):
        """Return the route of an app that matches a path."""
        _, _, *rest = path.split("/", 2)
        routes = import_apis_module(app).app.routes
        return next((route for route in routes if method in (route.methods or ()) and route.path_regex.match("/" + "".join(rest))), None)

    def _call(self, application: Callable, request: Request, path: str, query: str) -> Response:
        sent: list[dict] = []
        body = request.body.encode("latin-1")

        async def receive() -> dict:
            return {"type": "http.request", "body": body}

        async def send(message: dict) -> None:
            sent.append(message)

        headers = [*HOST_HEADERS, *((name.encode(), value.encode("latin-1")) for name, value in request.headers.items())]
        if body:
            headers.append((b"content-length", str(len(body)).encode()))
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "path": path,
            "raw_path": request.target.encode(),
            "root_path": "",
            "scheme": "http",
            "query_string": query.encode(),
            "headers": headers,
            "client": ["testclient", 50000],
            "server": ["testserver", 80],
            "extensions": {},
            "state": {},
        }
        try:
            _finish(application(scope, receive, send))
            return _response(sent)
        except Exception as error:  # AppWorld's test client raises it in the agent's code
            kind = type(error)
            return Response(500, {}, "", (f"{kind.__module__}.{kind.__qualname__}", str(error)[:ERROR_CHARS]))


def direct_application(owner, mounted: str, route) -> Callable:
    """Return an application for one route: the app's middleware around it, without matching every other route first."""
    outermost = innermost = owner.build_middleware_stack()
    while innermost.app is not owner.router:
        innermost = innermost.app
    innermost.app = route.handle

    async def application(scope: dict, receive: Callable, send: Callable) -> None:
        scope |= {"app": owner, "router": owner.router, "root_path": mounted}
        scope |= route.matches(scope)[1]
        await outermost(scope, receive, send)

    return application


def _finish(coroutine) -> None:
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise RuntimeError("an endpoint waited for something outside its own thread")


def _response(sent: list[dict]) -> Response:
    start = next(message for message in sent if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in sent if message["type"] == "http.response.body")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in start.get("headers", [])}
    return Response(start["status"], headers, body.decode("latin-1"))


def _not_found(text: str) -> Response:
    return error_response(404, text)


def error_response(status: int, text: str) -> Response:
    """Return the response of an app that rejects a request."""
    return Response(status, {"content-type": "application/json"}, json.dumps({"message": text}))
