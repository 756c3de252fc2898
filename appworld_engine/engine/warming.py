"""Warms up the zygote: what AppWorld and its libraries build at their first use is built before any fork."""

import json
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, urlencode

from appworld.api_docs import prepare_api_docs
from appworld.apps.api_lib import set_local_date_and_time
from appworld.common.utils import import_models_module

from engine.gateway import Gateway, Request, Response, public_apis
from engine.judge import drop_databases
from engine.world import OpenTask

ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""Order in which methods are called; what deletes comes last."""
SAMPLES = {"integer": 1, "number": 1.0, "boolean": True, "list[integer]": [1], "list[string]": ["x"], "list[str]": ["x"], "list[int]": [1]}
"""Sample values by the type of an argument; a text is `x`."""
NAMED = {"file_path": "~/x.txt", "card_number": 10**15, "expiry_year": 2030, "zip_code": 10**4, "cvv_number": 100, "time": "10:00", "duration": "monthly"}
"""Sample values by the end of an argument's name."""
REUSABLE = re.compile("(_id|email|phone_number)$")
"""Names of response fields whose values serve as arguments of other APIs."""
LOCKS_OUT = re.compile("password|logout|DELETE /[a-z_]+/account$")
"""APIs after which others would reject requests."""
FORM = "application/x-www-form-urlencoded"


def freeze(moment: str) -> None:
    """Freeze the clock at `moment`, in ISO format."""
    set_local_date_and_time(datetime.fromisoformat(moment))


def warm(gateway: Gateway, task_id: str, flush_to: Path) -> None:
    """Open a task, call every API, and build the validators of all models.

    The databases are flushed to `flush_to`, on which a judge then warms up, and dropped.
    """
    opened = OpenTask(task_id, gateway)
    accounts = json.loads(gateway.answer(Request("GET", "/supervisor/account_passwords", {}, "")).response.body)
    passwords = {account["account_name"]: account["password"] for account in accounts}
    docs = {app: prepare_api_docs(app, include_private_apis=False) for app in public_apis()}
    headers = {app: _login(gateway, opened.task.supervisor, app, passwords[app]) if app in passwords else {} for app in docs}
    for app, entries in docs.items():
        known: dict = {}  # by field name
        for doc in sorted(entries, key=lambda doc: (ORDER.index(doc["method"]), doc["path"].count("{"))):
            if not LOCKS_OUT.search(f"{doc['method']} {doc['path']}"):
                _learn(known, gateway.answer(_plausible(doc, headers[app], known)).response, opened.task.supervisor.values())
    for app in opened.apps:
        for model in import_models_module(app).SQLModel.models():
            model.validator()
    opened.flush(flush_to)
    opened.unfreeze()
    drop_databases()


def _plausible(doc: dict, headers: dict[str, str], known: dict) -> Request:
    """Return a request with a value for each required argument. Most APIs accept it, and many succeed."""
    path, arguments = doc["path"], {}
    for parameter in doc["parameters"]:
        value = _value(parameter["name"], parameter["type"], known)
        if "{" + parameter["name"] + "}" in path:
            path = path.replace("{" + parameter["name"] + "}", quote(str(value)))
        elif parameter["required"] and parameter["name"] != "access_token":
            arguments[parameter["name"]] = value
    if doc["method"] in ("GET", "DELETE"):
        return Request(doc["method"], f"{path}?{urlencode(arguments)}", headers, "")
    return Request(doc["method"], path, {**headers, "content-type": "application/json"}, json.dumps(arguments))


def _value(name: str, kind: str, known: dict) -> object:
    several = kind.startswith("list")
    single = name.removesuffix("es").removesuffix("s") if several else name
    for ending, value in (*known.items(), *NAMED.items()):
        if single.endswith(ending):
            return [value] if several else value
    return SAMPLES.get(kind, "x")


def _learn(known: dict, response: Response, own: Collection) -> None:
    """Remember the first value of each reusable field, except the supervisor's own values, which most APIs reject."""

    def note(record: dict) -> None:
        for name, value in record.items():
            if REUSABLE.search(name) and value and value not in own:
                known.setdefault(name, value)

    if response.status == 200:
        json.loads(response.body, object_hook=note)


def _login(gateway: Gateway, person: dict, app: str, password: str) -> dict[str, str]:
    for name in (person["email"], person["phone_number"]):
        form = urlencode({"username": name, "password": password})
        response = gateway.answer(Request("POST", f"/{app}/auth/token", {"content-type": FORM}, form)).response
        if response.status == 200:
            return {"authorization": "Bearer " + json.loads(response.body)["access_token"]}
    return {}
