"""Runs the agent's code: AppWorld's own `execute`, with apps that are reached over one socket. Holds no database and no ground truth."""

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

from engine.jail import WORKPLACE
from engine.output import cut
from engine.wire import Lines

MAX_CALLS_A_BLOCK, MAX_BLOCKS, RANDOM_SEED = 1000, 1000, 100
"""AppWorld's own."""
BASE_URL = "http://testserver"
ALSO_NEEDED = ("encodings.idna", "encodings.latin_1", "encodings.utf_8_sig", "encodings.utf_16", "encodings.unicode_escape", "unicodedata",
               "stringprep", "_strptime", "zoneinfo", "decimal", "statistics", "traceback", "linecache", "xml.etree.ElementTree", "html",
               "base64", "hashlib", "email.utils", "unittest.mock", "importlib.metadata", "pendulum.parser", "pendulum.locales.en.locale",
               "asyncio")  # fmt: skip
"""What allowed modules import late: nothing can be imported behind the walls."""


FOREIGN = re.compile(r"pendulum\.(testing|locales\.(?!en\b))")
"""What no agent asks for: its tests, and the words of other languages."""


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
"""Blocks of every outcome."""


SUSPICIOUS = re.compile(r"\bimport\b|\b(" + "|".join(sorted({name for names in DISALLOWED_MODULE_TO_FUNCTION_NAMES.values() for name in names})) + r")\b")
"""What the guard refuses names a module in an import, or one of its functions, in full."""


PLAIN, VISIBLE = re.compile(r"\w[\w/~-]*", re.ASCII), re.compile("[ -~]*")
"""A path, and a value of a header, that stay as they are."""


class AppsTransport(httpx.BaseTransport):
    """Carries a request to the world and its response back."""

    def __init__(self):
        self.lines: Lines | None = None
        self._within: list[str] = []

    def watched(self, name: str, function: Callable) -> Callable:
        """The function; while it runs, requests name it as one that they come from."""

        @functools.wraps(function)
        def call(*arguments, **options):
            self._within.append(name)
            try:
                return function(*arguments, **options)
            finally:
                self._within.remove(name)

        return call

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One exchange, in httpx's terms."""
        return self.exchange(request.method, request.url.raw_path.decode("ascii"), request.headers, request.read())

    def exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> httpx.Response:
        """One exchange; an exception inside the app is raised here, as AppWorld's own client does."""
        headers = {name: headers[name] for name in ("authorization", "content-type") if name in headers}
        self.lines.send({"api": [method, target, headers, body.decode("latin-1"), sorted(set(self._within))]})
        answer = self.lines.receive()
        if answer["error"]:
            kind, text = answer["error"]
            raise _exception(kind)(text)
        headers = {name: value for name, value in answer["headers"].items() if name in ("content-type", "location", "www-authenticate")}
        return httpx.Response(answer["status"], headers=headers, content=answer["body"].encode("latin-1"))


class AppsClient(httpx.Client):
    """What AppWorld's requester takes for its test client.

    A request whose address and headers need no encoding, which is nearly every one, takes no detour over httpx's addresses, cookies and hooks;
    its arguments are encoded by httpx itself.
    """

    def __init__(self, transport: AppsTransport):
        super().__init__(transport=transport, base_url=BASE_URL, headers={"user-agent": "testclient"}, follow_redirects=True, trust_env=False)
        self._apps = transport

    def request(self, method: str, url: str, *, data=None, json=None, params=None, headers=None, **options) -> httpx.Response:
        """One exchange; a redirection is followed in httpx's own way."""
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
        self.request_tracker = RequestTracker(max_num_requests=MAX_CALLS_A_BLOCK)
        self.raise_on_failure = True
        self.raise_on_extra_parameters = self.parse_datetimes = self.munchify_response = False


class QuickGuard(SafetyGuard):
    """AppWorld's guard over what code may say and call.

    It parses every block three times, and imports every module it guards anew around each: here blocks without one suspicious word are passed at
    once, and modules are looked up once.
    """

    @classmethod
    @functools.cache
    def module_by_path(cls, path: str) -> ModuleType:
        """AppWorld's answer."""
        return super().module_by_path(path)

    def is_syntax_safe(self, code: str) -> tuple[bool, str]:
        """AppWorld's answer."""
        return super().is_syntax_safe(code) if SUSPICIOUS.search(code) else (True, "")


class Interpreter(AppWorld):
    """AppWorld's environment, its `execute` untouched: only the data behind it is elsewhere."""

    def __init__(self, apis: dict[str, dict[str, dict[str, str]]]):
        """`apis`: app -> API -> path and method, of what agents may call."""
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
        """AppWorld's preamble; its collection of APIs is replaced by ours."""
        load = ApiCollection.load
        ApiCollection.load = lambda **_arguments: (self.apis, self.requester)
        self.import_utils, self.models_to_db_home_path, self.models_from_db_home_path, self.task = False, "", "", _NoTask()
        self.random_seed = self.show_api_response_schemas = self.parse_datetimes = self.munchify_response = None
        self.raise_on_failure = self.raise_on_extra_parameters = self.allow_datetime_change = self.add_login_shortcut = None
        self.max_api_calls_per_interaction = MAX_CALLS_A_BLOCK
        try:
            super()._execute_preamble()
        finally:
            ApiCollection.load = load

    def _save_state(self, directory: str) -> None:
        """Nothing to save here."""

    def save_logs(self) -> None:
        """Nothing to log here."""

    def renew_loop(self) -> None:
        """An event loop for blocks that await; the one of the parent lost its descriptors."""
        async_helpers._asyncio_event_loop = None
        async_helpers.get_asyncio_loop()

    def serve(self, connection: socket.socket, timeout_s: int, output_chars: int) -> None:
        """Runs what the world sends, until it hangs up; the first message says what time it is."""
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
            lines.send({"done": cut(text, output_chars)})

    def _watch(self, names: Sequence[str]) -> None:
        """Has requests tell which of the functions that a block has just defined they come from."""
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
    # IPython's coloured traceback is neither shown nor used; AppWorld renders its own.
    shell._showtraceback = lambda *_arguments: None
    shell.showtraceback = shell.showsyntaxerror = lambda *_arguments, **_options: None
    return shell


def preload() -> list[ModuleType]:
    """Imports everything that the agent's code may import, and wakes what is made at the first use."""
    names = [*sorted(ALLOWED_MODULE_NAMES - {"appworld"}), *ALSO_NEEDED]
    names += [module.name for module in pkgutil.walk_packages(pendulum.__path__, "pendulum.") if not FOREIGN.match(module.name)]
    modules = [importlib.import_module(name) for name in names]
    pendulum.now().diff_for_humans()
    datetime.strptime("2024-01-01", "%Y-%m-%d")
    pendulum.parse("2024-01-01T00:00:00")
    io.StringIO("x").read()
    return modules


def warm(interpreter: Interpreter) -> None:
    """Runs each kind of block once, so that nothing is left to be loaded."""
    interpreter.timeout_seconds = None
    for block in WARMING:
        interpreter.execute(block)
    interpreter.environment_io.clear()
    interpreter.num_interactions = 0
    set_local_date_and_time(datetime(2023, 5, 18))  # the first freeze searches every module; another on top of it costs nothing
    os.environ.clear()
    os.environ.update(HOME=WORKPLACE, TZ="UTC")
