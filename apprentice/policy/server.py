"""vLLM's OpenAI server as a child process that ends with its parent, and to which other processes can attach."""

import hashlib
import json
import os
import signal
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from apprentice.config.layout import RUNTIME
from apprentice.config.schema import PolicyConfig
from apprentice.errors import ApprenticeError
from apprentice.policy.endpoint import HOST, KEY_VARIABLE, Endpoint, new_endpoint
from apprentice.policy.postmortem import root_cause
from apprentice.precision import cpu_dtype
from apprentice.processes.children import Child, signal_of, spawn, start_time
from apprentice.processes.file_lock import locked
from apprentice.processes.limits import SHARING_CORES
from apprentice.records.files import read_json, write_json

STATE = RUNTIME / "policy-server.json"
"""File that records the running server, so that the processes of one flow share it."""
SERVED_NAME = "policy"
START_TIMEOUT_S = 300.0
POLL_S = 0.25
HEALTH_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 15.0
GRACE_S = 5.0
"""Time that the server has to end by itself; less than its parent has, so that the parent sees it end."""
SHARED_MEMORY_PREFIX = "psm_"
"""Prefix of the shared memory that vLLM leaves behind if it is killed while its workers run in processes of their own.

On several GPUs these are hundreds of MB for each start.
"""
MIN_BATCHED_TOKENS = 2048
"""Tokens that the engine can compute in one step, at least; a whole prompt must fit."""
GIB = 2**30
FREE_AT_START = 0.02
"""Share of a GPU's memory that must be free for the engine to start.

It is small because the trainer uses the same GPU; the memory that the engine takes is set in bytes.
"""
INTERPRETER = Path(".venv-serve/bin/python")
INTERPRETER_VARIABLE = "APPRENTICE_SERVE_PYTHON"
ENTRY = Path(__file__).parent / "serving" / "vllm_entry.py"


@dataclass(frozen=True)
class ServerState:
    """One running server, as recorded in STATE."""

    pid: int
    """Process id of the supervisor of the server's process tree."""
    born: str
    """The supervisor's `birth`, because the system reuses process ids."""
    recorded: str
    """Path of this STATE file; a file at another path is a copy, and the server is not that copy's."""
    endpoint: Endpoint
    model: str
    architecture: str
    """Digest of the model's config.json; models with the same digest can exchange weights."""
    max_context: int
    max_sequences: int
    log: str
    started: float
    """Unix time of the start, for people who read the file."""

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.born


class PolicyServer:
    """One vLLM server, which this object either starts or attaches to.

    Args:
        config: port, limits and memory.
        model: checkpoint folder that the server starts from; other weights of its architecture can be loaded later.
        log: file that receives the server's output.
        state: file that records the server for other processes.
    """

    def __init__(self, config: PolicyConfig, model: Path, log: Path, *, state: Path = STATE):
        self._config, self._model, self._log, self._state_file = config, model.resolve(), log, state
        self._state: ServerState | None = None
        self._child: Child | None = None

    def __enter__(self) -> "PolicyServer":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def endpoint(self) -> Endpoint:
        """The server's address; known once the server is started."""
        return self._started.endpoint

    @property
    def log(self) -> Path:
        """File with the server's output; known once the server is started."""
        return Path(self._started.log)

    @property
    def attached(self) -> bool:
        """Whether another process started the server and will stop it."""
        return self._state is not None and self._child is None

    @property
    def alive(self) -> bool:
        """Whether the server's processes exist; they may not answer yet."""
        return self._state is not None and self._state.alive and (self._child is None or self._child.poll() is None)

    @property
    def _record(self) -> str:
        return str(self._state_file.resolve())

    @property
    def _started(self) -> ServerState:
        if self._state is None:
            raise RuntimeError("the policy server has not been started")
        return self._state

    def start(self) -> None:
        """Attach to the recorded server, or start one, and return before it answers.

        Raises:
            ApprenticeError: vLLM's environment is missing, or another program has taken the port.
        """
        with _locked(self._state_file):
            running = _read_state(self._state_file)
            if running and running.alive and running.recorded == self._record and self._config.port in (0, running.endpoint.port):
                self._attach(running)
            else:
                self._spawn()

    def wait(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Return once the server answers for the model.

        Raises:
            ApprenticeError: the server ended before it answered, or did not answer in time; the message has the root
                cause from the server's log.
        """
        deadline = time.monotonic() + timeout_s
        while not self._healthy():
            if not self.alive:
                raise self._failure(f"ended before it answered{self._killed()}")
            if time.monotonic() > deadline:
                raise self._failure(f"did not answer within {timeout_s:.0f} s")
            time.sleep(POLL_S)

    def _failure(self, what: str) -> ApprenticeError:
        message = f"the policy server {what}:\n{textwrap.indent(root_cause(self.log), '  ')}"
        return ApprenticeError(message, where=self.log, todo=f"fix the cause named here; the whole log is {self.log}")

    def _killed(self) -> str:
        number = signal_of((self._child and self._child.poll()) or 0)
        return f", killed by signal {number}{'; out of memory?' if number == signal.SIGKILL else ''}" if number else ""

    def revive(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Make sure that a server answers: start a new one unless the current one still does.

        Raises:
            ApprenticeError: no server can be started.
        """
        if self.alive and self._healthy():
            return
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while self.attached and self.alive and time.monotonic() < deadline:
            time.sleep(POLL_S)
        self.stop()
        self.start()
        self.wait(timeout_s)

    def stop(self) -> None:
        """End the server's whole process tree if this object started it; otherwise only detach from it."""
        child, self._child, state, self._state = self._child, None, self._state, None
        if child is None:
            return
        child.stop()
        with _locked(self._state_file):
            if _read_state(self._state_file) == state:
                self._state_file.unlink()
                state.endpoint.remove_socket()

    def _attach(self, running: ServerState) -> None:
        ours = (_architecture(self._model), self._config.max_context, self._config.max_sequences)
        if ours != (running.architecture, running.max_context, running.max_sequences):
            raise ApprenticeError(
                f"a policy server with another model or other limits is running ({running.model}, process {running.pid})",
                where=self._state_file,
                todo=f"wait until its flow has ended, stop it (`kill {running.pid}`), or give this pipeline its own server: "
                f"policy.port={running.endpoint.suggested_port}",
            )
        self._state = running

    def _spawn(self) -> None:
        python = interpreter()
        endpoint = new_endpoint(self._config.port, self._state_file)
        self._log.unlink(missing_ok=True)
        command = [str(python), str(ENTRY), *self._flags(endpoint)]
        environment = engine_environment(self._config) | {KEY_VARIABLE: endpoint.key or None}
        self._child = spawn(command, log=self._log, env=environment, grace_s=GRACE_S, shared_memory=SHARED_MEMORY_PREFIX)
        self._state = ServerState(
            pid=self._child.pid,
            born=start_time(self._child.pid),
            recorded=self._record,
            endpoint=endpoint,
            model=str(self._model),
            architecture=_architecture(self._model),
            max_context=self._config.max_context,
            max_sequences=self._config.max_sequences,
            log=str(self._log),
            started=time.time(),
        )
        write_json(self._state_file, asdict(self._state), private=True)

    def _flags(self, endpoint: Endpoint) -> list[str]:
        return [
            *_address(endpoint),
            *("--model", str(self._model), "--served-model-name", SERVED_NAME),
            *("--dtype", "bfloat16", "--max-model-len", str(self._config.max_context), "--max-num-seqs", str(self._config.max_sequences)),
            *("--max-num-batched-tokens", str(max(self._config.max_context, MIN_BATCHED_TOKENS))),
            *("--kv-cache-memory-bytes", str(round(self._config.kv_cache_gib * GIB)), "--gpu-memory-utilization", str(FREE_AT_START)),
            *("--tensor-parallel-size", str(self._config.gpus), "--enable-sleep-mode" if self._config.sleep else "--no-enable-sleep-mode"),
            *("--logprobs-mode", "processed_logprobs", "--enable-prefix-caching"),
            *("--worker-extension-cls", "vllm_extension.PolicyWeights", "--disable-uvicorn-access-log", "--disable-fastapi-docs"),
        ]

    def _healthy(self) -> bool:
        try:
            if self.endpoint.get("/health", HEALTH_TIMEOUT_S).status_code != 200:
                return False
            models = self.endpoint.get("/v1/models", HEALTH_TIMEOUT_S).json()["data"]
        except (httpx.TransportError, ValueError, KeyError):
            return False
        return [(model["id"], model["root"]) for model in models] == [(SERVED_NAME, self._started.model)]


def _address(endpoint: Endpoint) -> tuple[str, ...]:
    """Return vLLM's flags for its address."""
    if endpoint.port is None:
        return "--uds", endpoint.socket
    return "--host", HOST, "--port", str(endpoint.port), "--middleware", "key_check.RequireKey"


def engine_environment(config: PolicyConfig) -> dict[str, str | None]:
    """Return the server's changes to this process's environment variables; None removes a variable.

    They remove secrets and variables that would affect vLLM's own environment, and set those that vLLM needs.
    """
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_PRELOAD", *(name for name in os.environ if name.startswith(("APPRENTICE_", "OMP_"))))
    threads = str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return dict.fromkeys(foreign) | {
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": threads,
        **SHARING_CORES,
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "CPU_DTYPE": cpu_dtype(),
        **({"CUDA_VISIBLE_DEVICES": ",".join(_gpus(config))} if config.first_gpu else {}),
    }


def _gpus(config: PolicyConfig) -> list[str]:
    """Return the server's GPUs among those that this process can see."""
    seen, last = os.environ.get("CUDA_VISIBLE_DEVICES"), config.first_gpu + config.gpus
    return (seen.split(",") if seen else [str(number) for number in range(last)])[config.first_gpu : last]


def interpreter() -> Path:
    """Return the interpreter of vLLM's environment.

    Raises:
        ApprenticeError: it does not exist.
    """
    python = Path(os.environ.get(INTERPRETER_VARIABLE, INTERPRETER)).absolute()
    if not python.exists():
        raise ApprenticeError("vLLM's environment is missing", where=python, todo="set it up with `make setup`, or choose policy.engine=transformers")
    return python


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    """Let one process at a time decide whether to attach or to start."""
    state.parent.mkdir(parents=True, exist_ok=True)
    with locked(state.with_suffix(".lock")):
        yield


def _read_state(path: Path) -> ServerState | None:
    if not path.exists():
        return None
    try:
        values = read_json(path)
        return ServerState(**values | {"endpoint": Endpoint(**values["endpoint"])})
    except (ApprenticeError, TypeError, KeyError):
        return None


def _architecture(model: Path) -> str:
    ignored = ("_name_or_path", "dtype", "torch_dtype", "transformers_version", "use_cache")
    values = {key: value for key, value in read_json(model / "config.json").items() if key not in ignored}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
