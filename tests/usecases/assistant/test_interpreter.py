"""The interpreter sends the world the same requests that AppWorld's own client would send."""

import json
import os
import subprocess

from apprentice.usecases.assistant.config import ENGINE

HEADERS = {"Authorization": "Bearer abc.def-_="}
PARAMETERS = [None, {}, {"q": "a b+c&d=é%/?~*'\"#[]"}, {"x": None, "y": True, "z": 1.5, "l": [1, 2, "a"]}, {"é": "ü", "q": ""}]
BODIES = [None, {}, {"a": "é\u2028", "b": [1, None, True, 1.5], "c": {"d": "/"}}]
FORMS = [{}, {"username": "a@b.c", "password": "x y&=é+"}, {"a": [1, 2], "b": None}]
ADDRESSES = ["a/x@y.z", "a/é", "a/../b", "/a/b", "a//b"]
REQUESTS = [
    *(["GET", "app/x", {"params": parameters, "headers": headers}] for parameters in PARAMETERS for headers in (HEADERS, {}, None)),
    *(["POST", "app/x", {"json": body, "headers": HEADERS}] for body in BODIES),
    *(["POST", "app/auth/token", {"data": form, "headers": {}}] for form in FORMS),
    *(["DELETE", address, {"params": {"n": 1}, "headers": HEADERS}] for address in ADDRESSES),
]
SCRIPT = """
import json, sys
from engine.interpreter import AppsClient, AppsTransport

class Recorder:
    def __init__(self): self.sent = []
    def send(self, value): self.sent.append(value)
    def receive(self): return {"error": None, "headers": {"content-type": "application/json"}, "status": 200, "body": "{}"}

def asked(call):
    transport.lines = Recorder()
    call()
    return transport.lines.sent

transport = AppsTransport()
client = AppsClient(transport)
pairs = []
for method, url, options in json.load(sys.stdin):
    ours = asked(lambda: client.request(method, url, **options))
    pairs.append((ours, asked(lambda: transport.handle_request(client.build_request(method, url, **options)))))
print(json.dumps(pairs))
"""


def test_requests_equal_those_that_httpx_builds(appworld_python, appworld_root, tmp_path):
    variables = {**os.environ, "PYTHONPATH": str(ENGINE), "APPWORLD_ROOT": str(appworld_root), "APPWORLD_CACHE": str(tmp_path), "IPYTHONDIR": str(tmp_path)}
    finished = subprocess.run([appworld_python, "-c", SCRIPT], input=json.dumps(REQUESTS), env=variables, cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    pairs = json.loads(finished.stdout)
    assert len(pairs) == len(REQUESTS)
    for request, (ours, httpx) in zip(REQUESTS, pairs, strict=True):
        assert ours == httpx and len(ours) == 1, request
