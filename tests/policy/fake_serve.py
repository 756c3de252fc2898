"""A fake of vLLM's server, which takes vLLM's flags and implements the endpoints that a policy needs.

The completion of a prompt is [version, seed]; the prompt [13] kills the server. A sleeping server takes weights once
it has memory for them, and completes nothing until it is fully awake. Environment variables control it: FAKE_FAMILY
(it has a child and a grandchild that ignore SIGTERM), FAKE_SHARED_MEMORY (name of a segment that it leaves behind), and
FAKE_DIES (it ends at once, see `die`).
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mmap import mmap

WEIGHTS = {"version": -1, "sources": []}
ASLEEP = set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.refused():
            return
        if self.path == "/is_sleeping":
            return self.answer({"is_sleeping": bool(ASLEEP)})
        self.answer({"data": [{"id": "policy", "root": FLAGS.model}]} if self.path == "/v1/models" else {})

    def do_POST(self):
        if self.refused():
            return
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        path, _, query = self.path.partition("?")
        if path == "/sleep":
            ASLEEP.update({"weights", "kv_cache"})
            return self.answer({})
        if path == "/wake_up":
            ASLEEP.remove(query.removeprefix("tags="))
            return self.answer({})
        if "weights" in ASLEEP or (ASLEEP and path not in ("/collective_rpc",)):
            return self.answer({"error": {"message": "asleep"}}, status=500)
        if self.path == "/collective_rpc" and body["method"] == "sync_weights":
            WEIGHTS.update(version=int(body["args"][0]), sources=body["args"][1:])
        if self.path == "/collective_rpc":
            return self.answer({"results": [WEIGHTS]})
        if self.path == "/reset_prefix_cache":
            return self.answer({"success": True})
        if len(body["prompt"]) > 100:
            return self.answer({"error": {"message": "the prompt is too long"}}, status=400)
        if body["prompt"] == [13]:
            print("Traceback (most recent call last):\n    step()\nRuntimeError: the engine cannot take 13", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        tokens = [WEIGHTS["version"], body["seed"]]
        self.answer({"choices": [{"token_ids": tokens, "logprobs": {"token_logprobs": [-0.5, 1e-9]}, "finish_reason": "length"}]})

    def refused(self):
        key = os.environ.get("APPRENTICE_POLICY_KEY")
        if key and self.headers.get("Authorization") != f"Bearer {key}":
            self.answer({"error": {"message": "no key"}}, status=401)
            return True

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 512


class SocketServer(Server):
    address_family = socket.AF_UNIX

    def server_bind(self):
        self.socket.bind(self.server_address)

    def get_request(self):
        return self.socket.accept()[0], ("local", 0)


def family() -> None:
    """Start a child in its own session, which starts a child in turn, as vLLM's server does."""
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = f"import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', {stubborn!r}]); print(os.getpid()); exec({stubborn!r})"
    subprocess.Popen([sys.executable, "-c", child], start_new_session=True, stdout=subprocess.DEVNULL)


def die(manner: str) -> None:
    """End as vLLM's server does: by a signal, with the exceptions of two processes, or with a message only."""
    if manner == "killed":
        print("loading", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if manner == "traceback":
        print("Traceback (most recent call last):\n    weights = load()\nMemoryError: no room for the weights\n", file=sys.stderr)
        frames = "    return call()\n" * 30
        print(f"Traceback (most recent call last):\n{frames}RuntimeError: Engine core initialization failed. See root cause above.", file=sys.stderr)
    sys.exit("fake: no memory for the weights")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--port", type=int)
    parser.add_argument("--uds")
    FLAGS, _ = parser.parse_known_args()
    if "FAKE_DIES" in os.environ:
        die(os.environ["FAKE_DIES"])
    if "FAKE_SHARED_MEMORY" in os.environ:
        with open(f"/dev/shm/{os.environ['FAKE_SHARED_MEMORY']}", "wb+") as segment:
            segment.truncate(4096)
            SEGMENT = mmap(segment.fileno(), 4096)
    if "FAKE_FAMILY" in os.environ:
        family()
    (SocketServer(FLAGS.uds, Handler) if FLAGS.uds else Server(("127.0.0.1", FLAGS.port), Handler)).serve_forever()
