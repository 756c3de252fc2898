"""Makes the zygote warm: what AppWorld and its libraries build at their first use is built before any fork."""

import json
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

from appworld.apps.api_lib import set_local_date_and_time

from .gateway import Gateway, Request, public_apis
from .judge import forget
from .world import OpenTask

FORM = "application/x-www-form-urlencoded"


def freeze(moment: str) -> None:
    """Stops the clock at `moment`, ISO format."""
    set_local_date_and_time(datetime.fromisoformat(moment))


def warm(gateway: Gateway, task_id: str, flush_to: Path) -> None:
    """Opens a task, calls every API that reads and needs nothing but a login, flushes the databases for a judge to get warm on, closes it again."""
    opened = OpenTask(task_id, gateway)
    accounts = json.loads(gateway.answer(Request("GET", "/supervisor/account_passwords", {}, "")).response.body)
    passwords = {account["account_name"]: account["password"] for account in accounts}
    for app, apis in public_apis().items():
        headers = _login(gateway, opened.task.supervisor, app, passwords[app]) if app in passwords and "login" in apis else {}
        for api in apis.values():
            if api["method"] == "GET" and "{" not in api["path"]:
                gateway.answer(Request("GET", api["path"], headers, ""))
    opened.flush(flush_to)
    opened.unfreeze()
    forget()


def _login(gateway: Gateway, person: dict, app: str, password: str) -> dict[str, str]:
    for name in (person["email"], person["phone_number"]):
        form = urlencode({"username": name, "password": password})
        response = gateway.answer(Request("POST", f"/{app}/auth/token", {"content-type": FORM}, form)).response
        if response.status == 200:
            return {"authorization": "Bearer " + json.loads(response.body)["access_token"]}
    return {}
