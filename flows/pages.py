"""The pages of Prefect and MLflow, on loopback and behind a key: `python -m flows.pages {prefect,mlflow}`."""

import argparse
import os
import secrets
import sys

from apprentice.config.layout import RUNTIME
from apprentice.errors import ApprenticeError
from apprentice.processes.network import HOST
from apprentice.records.files import write_text
from apprentice.tracking.store import follow_folder, is_server, named_store, open_commands, tracking_uri
from flows.server import set_defaults

USER = "apprentice"
KEY_VARIABLE = "APPRENTICE_PAGES_KEY"
"""Variable that replaces the key in KEY_FILE, for example in a container."""
KEY_FILE = RUNTIME / "pages.key"
PORTS = {"prefect": 4200, "mlflow": 5000}
MLFLOW_USERS = "[mlflow]\ndatabase_uri = sqlite:///{database}\ndefault_permission = READ\nauthorization_function = {check}\n"
MLFLOW_CHECK = "mlflow.server.auth:authenticate_request_basic_auth"


def key() -> str:
    """Return the key: KEY_VARIABLE, or the content of KEY_FILE, which is created if missing and is private."""
    if given := os.environ.get(KEY_VARIABLE):
        return given
    if not KEY_FILE.exists():
        write_text(KEY_FILE, secrets.token_urlsafe(24), private=True)
    return KEY_FILE.read_text(encoding="utf-8").strip()


def names(port: int) -> list[str]:
    """Return the host names under which a browser on this machine opens the pages."""
    return [f"{HOST}:{port}", f"localhost:{port}"]


def prefect(host: str, port: int, key: str) -> tuple[list[str], dict[str, str]]:
    """Return the command of Prefect's server, and variables that make it require the key and refuse other origins."""
    set_defaults(RUNTIME)
    variables = {
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{key}",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(f"http://{name}" for name in names(port)),
        "PREFECT_UI_API_URL": f"http://{HOST}:{port}/api",
    }
    return ["-m", "prefect", "server", "start", "--host", host, "--port", str(port)], variables


def mlflow(host: str, port: int, key: str) -> tuple[list[str], dict[str, str]]:
    """Return the command of MLflow's server for the tracking store, and the variables that make it require the key.

    MLflow keeps its users in a separate database. It is created anew at each start and has one user, whose password is
    the key.

    Raises:
        ApprenticeError: the store is a server, which has its own pages; or the project was moved and its database
            cannot be updated.
    """
    if is_server():
        raise ApprenticeError("names a server, which has its own pages", where="MLFLOW_TRACKING_URI", todo=f"open {open_commands()}")
    if not named_store():
        follow_folder()
    database, config = (RUNTIME / "mlflow-users.db").resolve(), (RUNTIME / "mlflow-users.ini").resolve()
    database.unlink(missing_ok=True)
    write_text(config, MLFLOW_USERS.format(database=database, check=MLFLOW_CHECK), private=True)
    hosts, origins = ",".join(names(port)), ",".join(f"http://{name}" for name in names(port))
    options = ["--workers", "1", "--app-name", "basic-auth", "--allowed-hosts", hosts, "--cors-allowed-origins", origins]
    variables = {
        "MLFLOW_BACKEND_STORE_URI": tracking_uri(),
        "MLFLOW_AUTH_CONFIG_PATH": str(config),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": key,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return ["-m", "mlflow", "server", "--host", host, "--port", str(port), *options], variables


def main(arguments: list[str] | None = None) -> None:
    """Print the address of the pages and how to sign in, then become their server."""
    parser = argparse.ArgumentParser(prog="python -m flows.pages", description=__doc__)
    parser.add_argument("pages", choices=PORTS)
    parser.add_argument("--host", default=HOST, help="address to listen on (default: %(default)s); others must not be able to reach it")
    parser.add_argument("--port", type=int, help=f"default: {PORTS}")
    chosen = parser.parse_args(arguments)
    port, secret = chosen.port or PORTS[chosen.pages], key()
    command, variables = {"prefect": prefect, "mlflow": mlflow}[chosen.pages](chosen.host, port, secret)
    sign_in = f"{USER}:{secret}" if chosen.pages == "prefect" else f"user {USER}, password {secret}"
    print(f"http://{HOST}:{port}   sign in: {sign_in}", flush=True)
    os.umask(0o077)
    os.execve(sys.executable, [sys.executable, *command], os.environ | variables)


if __name__ == "__main__":
    try:
        main()
    except ApprenticeError as error:
        sys.exit(f"error: {error}")
