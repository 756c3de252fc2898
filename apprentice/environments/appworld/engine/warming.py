"""Makes the zygote warm: what AppWorld and its libraries build at their first use is built before any fork."""

from datetime import datetime
from pathlib import Path

from appworld.apps.api_lib import set_local_date_and_time
from appworld.apps.model_lib import CachedDBHandler, ModelHashHandler, get_direct_cached_sqlite3_connection

from .gateway import Gateway, Request, public_apis


def freeze(moment: str) -> None:
    """Stops the clock at `moment`, ISO format."""
    set_local_date_and_time(datetime.fromisoformat(moment))


def warm(gateway: Gateway, root: Path) -> None:
    """Opens one task, calls every API that reads and needs no argument but a login, judges it, and closes it again."""
    task_id = min(path.name for path in (root / "data" / "tasks").iterdir())
    _read_everything(gateway, task_id)
    CachedDBHandler.reset()
    ModelHashHandler.reset()
    get_direct_cached_sqlite3_connection.cache_clear()


def _read_everything(gateway: Gateway, task_id: str) -> None:
    import json

    from .world import OpenTask

    opened = OpenTask(task_id, gateway)
    passwords = json.loads(gateway.answer(Request("GET", "/supervisor/account_passwords", {}, "")).response.body)
    person = opened.task.supervisor
    for app, apis in public_apis().items():
        headers = {}
        for entry in passwords:
            if entry["account_name"] == app and "login" in apis:
                name = person["phone_number"] if app == "phone" else person["email"]
                form = f"username={name}&password={entry['password']}".replace("+", "%2B").replace("@", "%40")
                answer = gateway.answer(Request("POST", apis["login"]["path"], {"content-type": "application/x-www-form-urlencoded"}, form))
                if answer.response.status == 200:
                    headers["authorization"] = "Bearer " + json.loads(answer.response.body)["access_token"]
        for api in apis.values():
            if api["method"] == "GET" and "{" not in api["path"]:
                gateway.answer(Request("GET", api["path"], headers, ""))
    opened.unfreeze()
