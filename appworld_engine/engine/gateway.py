"""Takes an agent's request to the apps, and to nothing else: neither to the admin app nor to the server's own routes (databases, clock, seed).

The apps' FastAPI application is called directly, in this thread, without an event loop: no thread is alive when a world is forked, and the
hops between threads, most of what AppWorld's own test client costs, fall away.
"""

import functools
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from appworld.apps import build_main_app, get_all_apps
from appworld.common.utils import get_name_to_apis, import_apis_module

from engine.numbers import refuse_infinite

ADMIN = "admin"
ERROR_CHARS = 10_000
"""Of an exception's text that the agent's code is told."""
METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
HEADERS = frozenset({"authorization", "content-type"})
TARGET_LIMIT, WRITE_BUDGET = 1 << 16, 8 << 20
"""Bytes of a request's path and query, and of all that the requests of an episode may ask to be written."""
UNCHANGING = {"host": "testserver", "accept": "*/*", "accept-encoding": "gzip, deflate", "connection": "keep-alive", "user-agent": "testclient"}
"""What AppWorld's own client sends with every request."""
HOST_HEADERS = tuple((name.encode(), value.encode()) for name, value in UNCHANGING.items())


class Refused(Exception):
    """AppWorld's client cannot make such a request."""


@dataclass(frozen=True)
class Request:
    """What an interpreter may ask."""

    method: str
    target: str
    """Path and query, encoded."""
    headers: dict[str, str]
    body: str
    """One character a byte."""
    within: tuple[str, ...] = ()
    """Functions at hand from earlier tasks that it is said to come from."""

    @property
    def writes(self) -> int:
        """Bytes that it may leave in the databases."""
        return 0 if self.method == "GET" else len(self.target) + len(self.body)


@dataclass(frozen=True)
class Response:
    """What it is told. `error` is (class, text) of an exception inside the app."""

    status: int
    headers: dict[str, str]
    body: str
    error: tuple[str, str] | None = None


@dataclass(frozen=True)
class Answer:
    """A response, and the API that gave it; empty names where the path is none's."""

    response: Response
    app: str
    api: str


def read_request(message: object, kept: Collection[str] = ()) -> Request:
    """Reads a request from what came over the socket.

    Args:
        message: what an interpreter sent.
        kept: names of the functions that are at hand from earlier tasks.

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
    """Whether each character stands for one byte."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True


def public_apis() -> dict[str, dict[str, dict[str, str]]]:
    """App -> name of an API that agents may call -> its path and method."""
    from appworld.api_docs import prepare_api_docs

    docs = {app: prepare_api_docs(app, include_private_apis=False) for app in sorted(get_all_apps(skip_admin=True))}
    return {app: {doc["api_name"]: {"path": doc["path"], "method": doc["method"]} for doc in entries} for app, entries in docs.items()}


class Gateway:
    """The apps, behind the list of what an agent may call."""

    def __init__(self):
        self._apps = set(get_all_apps(skip_admin=True))
        self._application = build_main_app(sorted([*self._apps, ADMIN]))
        self._straight: dict[Callable, Callable] = {}
        self._public = {app: set(get_name_to_apis(app).values()) for app in self._apps}
        for app in self._apps:
            refuse_infinite(import_apis_module(app).app.routes)
        self._names = {app: set(get_name_to_apis(app)) for app in self._apps}

    def looked_up(self, request: Request) -> str:
        """`app.api`, or `app`, whose documentation a request for some names; empty where there is no such app, or no such API."""
        asked = parse_qs(request.target.partition("?")[2])
        app, api = (asked.get(name, [""])[0] for name in ("app_name", "api_name"))
        if app not in self._names or (api and api not in self._names[app]):
            return ""
        return f"{app}.{api}" if api else app

    def answer(self, request: Request) -> Answer:
        """Calls the API that the request names."""
        path, _, query = request.target.partition("?")
        path = unquote(path)
        app = path.split("/", 2)[1]
        if app not in self._apps:
            return Answer(_not_found(f"No app named '{app}' found."), "", "")
        route = self._route(app, request.method, path)
        if route is None:  # the app itself words the refusal
            return Answer(self._call(self._application, request, path, query), "", "")
        if route.endpoint not in self._public[app]:
            return Answer(_not_found(f"No API named '{path.split('/', 2)[-1]}' found in the {app} app."), "", "")
        if route.endpoint not in self._straight:
            self._straight[route.endpoint] = straight(import_apis_module(app).app, f"/{app}", route)
        return Answer(self._call(self._straight[route.endpoint], request, path, query), app, route.endpoint.__name__)

    @functools.lru_cache(maxsize=512)  # noqa: B019 (a gateway lives as long as its process)
    def _route(self, app: str, method: str, path: str):
        """The route of an app that takes a path."""
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
        except Exception as error:  # what AppWorld's test client raises in the agent's code
            kind = type(error)
            return Response(500, {}, "", (f"{kind.__module__}.{kind.__qualname__}", str(error)[:ERROR_CHARS]))


def straight(owner, mounted: str, route) -> Callable:
    """The application of one route: what its app wraps around all of them, without trying every other route first."""
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
    return refusal(404, text)


def refusal(status: int, text: str) -> Response:
    """What an app answers where it does not do what it is asked."""
    return Response(status, {"content-type": "application/json"}, json.dumps({"message": text}))
