"""Makes the zygote warm: what AppWorld and its libraries build at their first use is built before any fork."""

import json
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

from appworld.api_docs import prepare_api_docs
from appworld.apps.api_lib import set_local_date_and_time
from appworld.common.utils import import_models_module
from engine.gateway import Gateway, Request, public_apis
from engine.judge import forget
from engine.world import OpenTask

ORDER = ("GET", "POST", "PUT", "PATCH", "DELETE")
"""Of the methods: what takes away comes last."""
SAMPLES = {"integer": 1, "number": 1.0, "boolean": True, "list[integer]": [1], "list[string]": ["x"], "list[str]": ["x"], "list[int]": [1]}
FORM = "application/x-www-form-urlencoded"


def freeze(moment: str) -> None:
    """Stops the clock at `moment`, ISO format."""
    set_local_date_and_time(datetime.fromisoformat(moment))


def warm(gateway: Gateway, task_id: str, flush_to: Path) -> None:
    """Opens a task, calls every API, builds what checks new records, flushes the databases for a judge to get warm on, throws them away."""
    opened = OpenTask(task_id, gateway)
    accounts = json.loads(gateway.answer(Request("GET", "/supervisor/account_passwords", {}, "")).response.body)
    passwords = {account["account_name"]: account["password"] for account in accounts}
    docs = {app: prepare_api_docs(app, include_private_apis=False) for app in public_apis()}
    headers = {app: _login(gateway, opened.task.supervisor, app, passwords[app]) if app in passwords else {} for app in docs}
    for method in ORDER:
        for app, entries in docs.items():
            for doc in entries:
                if doc["method"] == method and "password" not in doc["path"]:
                    gateway.answer(_plausible(doc, headers[app]))
    for app in opened.apps:
        for model in import_models_module(app).SQLModel.models():
            model.validator()
    opened.flush(flush_to)
    opened.unfreeze()
    forget()


def _plausible(doc: dict, headers: dict[str, str]) -> Request:
    """A request with some value for each argument that the API needs: most are understood, many do what the API does."""
    path, arguments = doc["path"], {}
    for parameter in doc["parameters"]:
        value = SAMPLES.get(parameter["type"], "x")
        if "{" + parameter["name"] + "}" in path:
            path = path.replace("{" + parameter["name"] + "}", str(value))
        elif parameter["required"] and parameter["name"] != "access_token":
            arguments[parameter["name"]] = value
    if doc["method"] in ("GET", "DELETE"):
        return Request(doc["method"], f"{path}?{urlencode(arguments)}", headers, "")
    return Request(doc["method"], path, {**headers, "content-type": "application/json"}, json.dumps(arguments))


def _login(gateway: Gateway, person: dict, app: str, password: str) -> dict[str, str]:
    for name in (person["email"], person["phone_number"]):
        form = urlencode({"username": name, "password": password})
        response = gateway.answer(Request("POST", f"/{app}/auth/token", {"content-type": FORM}, form)).response
        if response.status == 200:
            return {"authorization": "Bearer " + json.loads(response.body)["access_token"]}
    return {}
