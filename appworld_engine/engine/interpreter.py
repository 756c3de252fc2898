"""Runs the agent's code with AppWorld's own `execute`, in a process without databases and ground truth.

The apps are reached over one socket.
"""

import functools
import importlib
import io
import os
import pkgutil
import random
import re
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import FunctionType, ModuleType

import appworld.requester
import httpx
import pendulum
from appworld.apps.api_lib import set_local_date_and_time
from appworld.collections.apis import ApiCollection, _wrap_api_request
from appworld.common.safety_guard import ALLOWED_MODULE_NAMES, DISALLOWED_MODULE_TO_FUNCTION_NAMES, SafetyGuard
from appworld.common.utils import CustomErrorMessageMunch, GCThreshold
from appworld.environment import AppWorld
from appworld.requester import Requester, RequestTracker
from httpx._content import encode_request
from IPython.core import async_helpers

from engine.output import truncate
from engine.sandbox import WORKING_FOLDER
from engine.wire import Lines

MAX_CALLS_PER_BLOCK, MAX_BLOCKS, RANDOM_SEED = 1000, 1000, 100
"""The values that AppWorld uses."""
BASE_URL = "http://testserver"
ALSO_NEEDED = ("encodings.idna", "encodings.latin_1", "encodings.utf_8_sig", "encodings.utf_16", "encodings.unicode_escape", "unicodedata",
               "stringprep", "_strptime", "zoneinfo", "decimal", "statistics", "traceback", "linecache", "xml.etree.ElementTree", "html",
               "base64", "hashlib", "email.utils", "unittest.mock", "importlib.metadata", "pendulum.parser", "pendulum.locales.en.locale",
               "asyncio")  # fmt: skip
"""Modules that allowed modules import late; nothing can be imported inside the sandbox."""

FOREIGN = re.compile(r"pendulum\.(testing|locales\.(?!en\b))")
"""Modules that no agent needs: tests, and the locales of other languages."""

WARMING = (
    "x = 1\nprint({'a': x})",
    "print(1/0)",
    "print(",
    "%time 1",
    "import os; os.listdir('/')",
    "raise Exception('x')",
    "apis.no_app.no_api()",
    "apis.spotify.no_api()",
    "print(DateTime.now())",
    "async def x():\n    pass\nawait x()",
    "del x",
)
"""Blocks with every kind of outcome."""

SUSPICIOUS = re.compile(r"\bimport\b|\b(" + "|".join(sorted({name for names in DISALLOWED_MODULE_TO_FUNCTION_NAMES.values() for name in names})) + r")\b")
"""Code that the guard rejects contains an import or the full name of a guarded function."""

PLAIN, VISIBLE = re.compile(r"\w[\w/~-]*", re.ASCII), re.compile("[ -~]*")
"""A path and a header value that need no encoding."""


class AppsTransport(httpx.BaseTransport):
    """Carries requests to the world and responses back."""

    def __init__(self):
        self.lines: Lines | None = None
        self._within: list[str] = []

    def watched(self, name: str, function: Callable) -> Callable:
        """Wrap a function so that requests made while it runs name it."""

        @functools.wraps(function)
        def call(*arguments, **options):
            self._within.append(name)
            try:
                return function(*arguments, **options)
            finally:
                self._within.remove(name)

        return call

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Make one exchange with httpx's types."""
        return self.exchange(request.method, request.url.raw_path.decode("ascii"), request.headers, request.read())

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """Make one exchange. An exception inside the app is raised here, as AppWorld's own client raises it."""
        headers = {name: headers[name] for name in ("authorization", "content-type") if name in headers}
        self.lines.send({"api": [method, target, headers, body.decode("latin-1"), sorted(set(self._within))]})
        answer = self.lines.receive()
        if answer["error"]:
            kind, text = answer["error"]
            raise _exception(kind)(text)
        headers = {name: value for name, value in answer["headers"].items() if name in ("content-type", "location", "www-authenticate")}
        return httpx.Response(answer["status"], headers=headers, content=answer["body"].encode("latin-1"))


class AppsClient(httpx.Client):
    """The client that AppWorld's requester uses in place of its test client.

    Nearly every request has an address and headers that need no encoding. Such a request bypasses httpx's handling of
    addresses, cookies, and hooks; httpx still encodes its arguments.
    """

    def __init__(self, transport: AppsTransport):
        super().__init__(transport=transport, base_url=BASE_URL, headers={"user-agent": "testclient"}, follow_redirects=True, trust_env=False)
        self._apps = transport

    def request(self, method: str, url: str, *, data=None, json=None, params=None, headers=None, **options) -> httpx.Response:
        """Make one exchange; httpx itself follows a redirect."""
        headers = headers or {}
        if PLAIN.fullmatch(url) and all(VISIBLE.fullmatch(value) for value in headers.values()):
            described, stream = encode_request(data=data, json=json)
            query = str(httpx.QueryParams(params)) if params else ""
            named = {name.lower(): value for name, value in (*headers.items(), *described.items())}
            response = self._apps.exchange(method, f"/{url}?{query}" if query else f"/{url}", named, b"".join(stream))
            if not response.has_redirect_location:
                return response
        return super().request(method, url, data=data, json=json, params=params, headers=headers, **options)


@functools.cache
def _exception(kind: str) -> type[Exception]:
    module, _, name = kind.rpartition(".")
    return type(name, (Exception,), {"__module__": module})


class RemoteRequester(Requester):
    """AppWorld's requester without the databases that its constructor opens."""

    def __init__(self, client: AppsClient, apps: tuple[str, ...]):
        self.client, self.apps, self.remote_apis_url = client, apps, None
        self.date_and_time = self.time_freezer_or_id = None
        self.request_tracker = RequestTracker(max_num_requests=MAX_CALLS_PER_BLOCK)
        self.raise_on_failure = True
        self.raise_on_extra_parameters = self.parse_datetimes = self.munchify_response = False


class QuickGuard(SafetyGuard):
    """AppWorld's guard over what code may contain and call, but faster.

    AppWorld's guard parses every block three times and imports every guarded module again around each block. This one
    passes blocks without a suspicious word at once and looks modules up once.
    """

    @classmethod
    @functools.cache
    def module_by_path(cls, path: str) -> ModuleType:
        """Return what AppWorld's guard returns."""
        return super().module_by_path(path)

    def is_syntax_safe(self, code: str) -> tuple[bool, str]:
        """Return what AppWorld's guard returns."""
        return super().is_syntax_safe(code) if SUSPICIOUS.search(code) else (True, "")


class Interpreter(AppWorld):
    """AppWorld's environment with its own `execute`; only the data behind it is elsewhere."""

    def __init__(self, apis: dict[str, dict[str, dict[str, str]]]):
        """Create the environment.

        Args:
            apis: what agents may call, app -> API -> path and method.
        """
        appworld.requester._get_api_name_to_doc = lambda app, include_private_apis=False: apis.get(app, {})
        self._transport = AppsTransport()
        self.requester = RemoteRequester(AppsClient(self._transport), tuple(apis))
        self.apis = _collection(apis, self.requester)
        self.remote_environment_url = self.remote_apis_url = None
        self.raise_on_unsafe_syntax = self.null_patch_unsafe_execution = True
        self.max_interactions = MAX_BLOCKS
        self.output_db_home_path_on_disk = ""
        self.environment_io = []
        self.num_interactions = 0
        self.shell = _make_shell()
        self._execute_preamble()
        self.safety_guard = QuickGuard()
        GCThreshold.set(500000)

    def _execute_preamble(self) -> None:
        """Execute AppWorld's preamble with our collection of APIs."""
        load = ApiCollection.load
        ApiCollection.load = lambda **_arguments: (self.apis, self.requester)
        self.import_utils, self.models_to_db_home_path, self.models_from_db_home_path, self.task = False, "", "", _NoTask()
        self.random_seed = self.show_api_response_schemas = self.parse_datetimes = self.munchify_response = None
        self.raise_on_failure = self.raise_on_extra_parameters = self.allow_datetime_change = self.add_login_shortcut = None
        self.max_api_calls_per_interaction = MAX_CALLS_PER_BLOCK
        try:
            super()._execute_preamble()
        finally:
            ApiCollection.load = load

    def _save_state(self, directory: str) -> None:
        """Do nothing: there is no state to save here."""

    def save_logs(self) -> None:
        """Do nothing: there are no logs here."""

    def renew_loop(self) -> None:
        """Create an event loop for blocks that await; the parent's loop has lost its descriptors."""
        async_helpers._asyncio_event_loop = None
        async_helpers.get_asyncio_loop()

    def serve(self, connection: socket.socket, timeout_s: int, output_chars: int) -> None:
        """Run the blocks that the world sends, until it closes the connection. The first message sets the time."""
        self._transport.lines = lines = Lines(connection)
        self.timeout_seconds = timeout_s
        set_local_date_and_time(datetime.fromisoformat(lines.receive()["now"]))
        random.seed(RANDOM_SEED)
        lines.send({"ready": True})
        while True:
            message = lines.receive()
            text = self.execute(message["code"])
            self.environment_io.clear()
            self._watch(message["kept"])
            lines.send({"done": truncate(text, output_chars)})

    def _watch(self, names: Sequence[str]) -> None:
        """Make later requests report which of these functions, just defined by a block, they came from."""
        defined = self.shell.user_ns
        defined.update({name: self._transport.watched(name, defined[name]) for name in names if isinstance(defined.get(name), FunctionType)})


class _NoTask:
    datetime, allowed_apps = None, ()


def _collection(apis: dict[str, dict], requester: RemoteRequester) -> ApiCollection:
    collection = ApiCollection(error_message="No app named '{key}' found.")
    for app, names in apis.items():
        collection[app] = CustomErrorMessageMunch.build("No API named '{key}' found in the " + app + " app.")
        for name in sorted(names):
            collection[app][name] = _wrap_api_request(app_name=app, api_name=name, requester=requester)
    collection._requester = requester
    return collection


def _make_shell():
    from IPython.terminal.embed import InteractiveShellEmbed
    from traitlets.config.loader import Config

    hook, config = sys.excepthook, Config()
    config.HistoryManager.enabled = False
    shell = InteractiveShellEmbed(config=config)
    sys.excepthook = hook
    shell.ast_node_interactivity = "none"
    # IPython's coloured traceback is not used: AppWorld renders its own.
    shell._showtraceback = lambda *_arguments: None
    shell.showtraceback = shell.showsyntaxerror = lambda *_arguments, **_options: None
    return shell


def preload() -> None:
    """Import everything that the agent's code may import, and build what is built at the first use."""
    names = [*sorted(ALLOWED_MODULE_NAMES - {"appworld"}), *ALSO_NEEDED]
    names += [module.name for module in pkgutil.walk_packages(pendulum.__path__, "pendulum.") if not FOREIGN.match(module.name)]
    for name in names:
        importlib.import_module(name)
    pendulum.now().diff_for_humans()
    datetime.strptime("2024-01-01", "%Y-%m-%d")
    pendulum.parse("2024-01-01T00:00:00")
    io.StringIO("x").read()


def warm(interpreter: Interpreter) -> None:
    """Run each kind of block once, so that nothing is left to be loaded."""
    interpreter.timeout_seconds = None
    for block in WARMING:
        interpreter.execute(block)
    interpreter.environment_io.clear()
    interpreter.num_interactions = 0
    set_local_date_and_time(datetime(2023, 5, 18))  # the first freeze searches every module, later ones are free
    os.environ.clear()
    os.environ.update(HOME=WORKING_FOLDER, TZ="UTC")
