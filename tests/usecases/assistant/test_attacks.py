"""The agent's code is hostile: no attack leaves the sandbox or costs more than its own episode.

An attack is judged from outside: by its output, by whether its episode is alive, and by the unchanged machine.
AppWorld's own guard rejects many attacks by their wording. To test the sandbox instead, the attacks first get hold of
the real modules past that guard.
"""

import asyncio
import os
import socket
import threading
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from usecases.assistant.conftest import CANARY

from apprentice.usecases.assistant.environment.episode import Execution, Judgement

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

NUMBERS = count()
BREAK_OUT = """
imp = getattr(builtins, "__imp" + "ort__")
modules = getattr(imp("sys"), "modules")
posix, ctypes, sock, signal = (modules.get(name) for name in ("posix", "ctypes", "socket", "signal"))
gc, sys, threading = (modules.get(name) for name in ("gc", "sys", "threading"))
libc = ctypes.CDLL(None, use_errno=True) if ctypes else None
def syscall(*arguments):
    result = libc.syscall(*arguments)
    return result if result >= 0 else "errno %d" % ctypes.get_errno()
def attempt(action):
    try:
        print("RESULT", action())
    except BaseException as error:
        print("REFUSED", type(error).__name__, str(error)[:200])
def my_socket():
    return apis._requester.client._transport.lines._connection
"""
"""Defines names for the attacks: the real modules without AppWorld's patches."""


@dataclass(frozen=True)
class Attack:
    """One hostile block and the required state of its episode afterwards."""

    name: str
    code: str
    never: tuple[str, ...] = ("RESULT",)
    """Texts that its output must not contain."""
    killed: bool | None = False
    """Whether the episode is killed for it; None if both are allowed."""


STACK = """
libc.getauxval.restype = ctypes.c_ulong
begin = ctypes.c_void_p.in_dll(libc, "program_invocation_name").value
attempt(lambda: ctypes.string_at(begin, (libc.getauxval(31) | 4095) + 1 - begin).replace(bytes(1), b" ").split())
"""
"""Reads the strings that the kernel puts on a new process's stack: arguments, environment, program."""
FORGE = """
def forge(app, who):
    json, hashlib, base64 = imp("json"), imp("hashlib"), imp("base64")
    part = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=")
    claims = {"sub": app + "+" + who, "exp": 4102444800}
    text = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + b"." + part(json.dumps(claims).encode())
    key = b"SECRET".ljust(64, bytes(1))
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + text).digest()
    return (text + b"." + part(hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest())).decode()
me = apis.supervisor.show_profile()["email"]
"""
"""Forges a token as AppWorld signs it."""
GUESS = """
me = apis.supervisor.show_profile()["email"]
def quietly(api, **arguments):
    try:
        api(email=me, **arguments)
    except Exception:
        pass  # generated data has no account that mails codes; earlier effects still count
quietly(apis.venmo.send_password_reset_code)
code = str(imp("uuid").UUID(int=imp("random").Random(100).getrandbits(128), version=4)).replace("-", "")[:7]
quietly(apis.venmo.reset_password, password_reset_code=code, new_password="another one")
attempt(lambda: apis.venmo.login(username=me, password="another one"))
"""
"""Guesses the code that AppWorld mails to the owner of an account from AppWorld's initial seed."""

CALL = ("RESULT 0", "RESULT 1", "RESULT 2", "RESULT 3", "RESULT 4", "RESULT 5", "RESULT 6")
"""Results of a system call that succeeded."""

ATTACKS = [
    # --- processes ---
    Attack("os.system", "import os\nattempt(lambda: getattr(os, 'sys' + 'tem')('touch @OUT@'))", ("RESULT 0",)),
    Attack("os.popen", "import os\nattempt(lambda: os.popen('id').read())"),
    Attack("os.execv", "import os\nattempt(lambda: os.execv('/bin/true', ['true']))"),
    Attack("posix.execv", "attempt(lambda: posix.execv('/bin/sh', ['sh', '-c', 'touch @OUT@']))"),
    Attack("posix_spawn", "import os\nattempt(lambda: os.posix_spawn('/bin/touch', ['touch', '@OUT@'], {}))"),
    Attack("subprocess", "attempt(lambda: imp('subprocess').run(['id'], capture_output=True))", ("uid=", "CompletedProcess")),
    Attack("_posixsubprocess", "attempt(lambda: imp('_posixsubprocess').fork_exec)", ()),
    Attack("fork bomb", "attempt(lambda: posix.fork())"),
    Attack("fork by system call", "attempt(lambda: syscall(57))", CALL),
    Attack("clone3", "attempt(lambda: syscall(435, 0, 0))", CALL),
    Attack("threads", "attempt(lambda: threading.Thread(target=print).start())"),
    Attack("shell escape of IPython", "attempt(lambda: get_ipython().system('touch @OUT@'))", ()),
    Attack("getoutput of IPython", "attempt(lambda: print('GOT', get_ipython().getoutput('id')))", ("uid=",)),
    # --- files ---
    Attack("ground truth through open", "attempt(lambda: getattr(builtins, 'op' + 'en')('@TRUTH@').read())"),
    Attack("ground truth through pathlib", "import pathlib\nattempt(lambda: pathlib.Path('@TRUTH@').read_text())"),
    Attack("ground truth through FileIO", "attempt(lambda: imp('io').FileIO('@TRUTH@').read())"),
    Attack("ground truth by system call", "attempt(lambda: syscall(2, b'@TRUTH@', 0))", CALL),
    Attack("password file", "attempt(lambda: imp('_io').open('/etc/passwd').read())"),
    Attack("listing the root", "import os\nattempt(lambda: [entry.name for entry in os.scandir('/')])", ("etc", "proc", "home", "bin")),
    Attack("writing a file", "attempt(lambda: imp('io').FileIO('@OUT@', 'w').write(b'x'))"),
    Attack("writing inside its own root", "attempt(lambda: imp('io').FileIO('/zoneinfo/x', 'w').write(b'x'))"),
    Attack("memory of this process", "attempt(lambda: imp('io').FileIO('/proc/self/mem').read(1))"),
    Attack("climbing out of the root", "attempt(lambda: [syscall(161, b'.'), syscall(80, b'../../..'), syscall(165, 0, 0, 0, 0, 0)])", ("[0",)),
    Attack("anonymous file", "attempt(lambda: syscall(319, b'x', 0))", CALL),
    # --- network, other processes ---
    Attack("TCP to this machine", "attempt(lambda: sock.socket().connect(('127.0.0.1', @PORT@)))"),
    Attack("socket by system call", "attempt(lambda: syscall(41, 2, 1, 0))", CALL),
    Attack("unix socket", "attempt(lambda: sock.socket(1, 1).connect('/run/x'))"),
    Attack("tracing the world", "attempt(lambda: [syscall(101, 16, pid, 0, 0) for pid in (1, @WORLD@)])", ("[0", ", 0]")),
    Attack("reading the world's memory", "attempt(lambda: syscall(310, @WORLD@, 0, 0, 0, 0, 0))", CALL),
    Attack("killing the world", "attempt(lambda: [syscall(62, pid, 9) for pid in (1, -1, @WORLD@)])", ("[0", ", 0")),
    Attack("killing its parent", "attempt(lambda: libc.kill(posix.getppid(), 9))", ("RESULT 0",)),
    Attack("becoming root", "attempt(lambda: [syscall(105, 0), syscall(106, 0), posix.getuid()])", ("[0", ", 0]")),
    Attack("undoing its limits", "attempt(lambda: imp('resource').setrlimit(7, (4096, 4096)))"),
    Attack("new namespaces", "attempt(lambda: syscall(272, 0x10000000))", CALL),
    Attack("another filter", "attempt(lambda: syscall(317, 1, 0, 0))", CALL),
    Attack("io_uring", "attempt(lambda: syscall(425, 1, 0))", CALL),
    Attack("code of its own in memory", "attempt(lambda: imp('mmap').mmap(-1, 4096, prot=7))"),
    # --- AppWorld from inside ---
    Attack("ground truth by import", "attempt(lambda: imp('appworld').task.Task.load('@TASK@').ground_truth.answer)"),
    Attack("ground truth in memory", "attempt(lambda: [o.answer for o in gc.get_objects() if type(o).__name__ == 'GroundTruth'][0])"),
    Attack("databases in memory", "attempt(lambda: list(modules['appworld.apps.model_lib'].CachedDBHandler.cache)[0])"),
    Attack("models by import", "attempt(lambda: imp('appworld.apps.spotify.models', fromlist=['x']).Song.first())"),
    Attack("models in memory", "attempt(lambda: [name for name in modules if name.startswith('appworld.apps.') and name.endswith('.models')][0])"),
    Attack("environment variables", "import os\nattempt(lambda: os.environ['APPWORLD_ROOT'])"),
    Attack("environment of the trainer", STACK, (CANARY, "engine.zygote", "PYTHONPATH", "bin/python")),
    Attack("forged token", FORGE + "attempt(lambda: apis.venmo.show_venmo_balance(access_token=forge('venmo', me)))"),
    Attack("guessed reset code", GUESS),
    Attack("admin app", "attempt(lambda: apis.admin)"),
    Attack("admin through the requester", "attempt(lambda: requester.request('admin', 'credit_to_card', card_number=1, amount=10**6))"),
    Attack("admin by address", "attempt(lambda: requester.post('/admin/cards', {'main_user_id': 1}, raise_on_failure=True))"),
    Attack("admin by path traversal", "attempt(lambda: apis.simple_note.show_note(note_id='../../admin/cards', access_token='x'))"),
    Attack("admin, encoded", "attempt(lambda: requester.get('/spotify/..%2fadmin/cards', raise_on_failure=True))"),
    Attack("server's clock", "attempt(lambda: requester.post('/date_time', {'date_and_time': '2020-01-01'}, raise_on_failure=True))"),
    Attack("server's databases", "attempt(lambda: requester.post('/dbs/save', {'from_db_home_path': 'x', 'to_db_home_path': '@OUT@'}, raise_on_failure=True))"),
    Attack("server's databases, loaded", "attempt(lambda: requester.post('/dbs', {'to_db_home_path': '@OUT@'}, raise_on_failure=True))"),
    Attack("other host", "attempt(lambda: requester.get('http://127.0.0.1:@PORT@/', raise_on_failure=True))"),
    Attack(
        "undoing AppWorld's guard",
        "[o for o in gc.get_objects() if type(o).__name__ == 'SafetyGuard'][0].disable()\nattempt(lambda: imp('os').listdir('/etc'))",
    ),
    Attack("unicode names", "attempt(lambda: getattr(imp('os'), 'ｓｙｓｔｅｍ'))\nattempt(lambda: ｏｐｅｎ('/etc/passwd').read())"),
    Attack("frames above", "frame = sys._getframe()\nwhile frame:\n    attempt(lambda: frame.f_locals['_opened'])\n    frame = frame.f_back"),
    Attack(
        "a client of its own",
        "apis.spotify['login'] = lambda **k: {'access_token': 'x'}\napis.supervisor['complete_task'] = lambda **k: 'done'\napis.supervisor.complete_task()",
    ),
    # --- the socket to the world ---
    Attack("nonsense on the socket", "my_socket().send(b'hello\\n')", killed=True),
    Attack("no line on the socket", "s = my_socket()\nwhile True: s.send(b'x' * 65536)", killed=True),
    Attack("deep message", "my_socket().send(b'[' * 100000 + b'\\n')", killed=True),
    Attack("wrong fields", "my_socket().send(b'{\"api\": [1, 2, 3, 4, 5]}\\n')", killed=True),
    Attack("strange method", 'my_socket().send(b\'{"api": ["CONNECT", "/dbs", {}, "", []]}\\n\')', killed=True),
    Attack("strange header", 'my_socket().send(b\'{"api": ["GET", "/spotify/", {"x-a": "b"}, "", []]}\\n\')', killed=True),
    Attack("operation of the client", 'my_socket().send(b\'{"op": "flush"}\\n\')', killed=True),
    Attack("closing the socket", "my_socket().close()", killed=True),
    Attack("endless calls", "requester.request_tracker.max_num_requests = None\nwhile True: apis.supervisor.show_profile()", killed=True),
    Attack("writing to every descriptor", "for fd in range(1024):\n    try: posix.write(fd, b'\\n')\n    except OSError: pass", killed=None),
    Attack("passing descriptors on", "attempt(lambda: my_socket().sendmsg([b'{}'], [(1, 1, (3).to_bytes(4, 'little'))]) and 0)", (), killed=None),
    Attack("forged output", "my_socket().sendall(b'{\"done\": \"' + b'x' * 20_000_000 + b'\"}\\n')", killed=None),
    Attack("urgent data on the socket", "attempt(lambda: my_socket().send(b'x', 1))"),
    Attack("header in another alphabet", 'my_socket().send(b\'{"api": ["GET", "/spotify/", {"authorization": "\\\\u20ac"}, "", []]}\\n\')', killed=True),
    # --- exhaustion, and refusing to end ---
    Attack("memory bomb", "x = []\nwhile True: x.append(bytearray(10**8))"),
    Attack("100 MB of output", "print('x' * 100_000_000)", killed=None),
    Attack("endless output", "while True: print('x' * 1000)", killed=None),
    Attack("descriptors", "s = []\nattempt(lambda: [s.append(posix.dup(0)) for _ in range(10000)])"),
    Attack("endless loop", "while True: pass"),
    Attack("endless loop that catches all", "while True:\n    try:\n        sum(range(10**6))\n    except BaseException: pass", killed=True),
    Attack("endless loop in C", "print(sum(range(10**12)))", killed=None),
    Attack("alarm switched off", "signal.alarm(0)\nwhile True: pass", killed=True),
    Attack("sleeping for ever", "signal.signal(14, signal.SIG_IGN)\nlibc.sleep(100000)", killed=True),
    Attack("catastrophic pattern", "print(re.match('(a+)+$', 'a' * 64 + 'b'))"),
    Attack("stack overflow", "def f(): f()\nf()"),
    Attack("deep recursion in C", "sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", killed=None),
    Attack("os._exit", "posix._exit(0)", killed=True),
    Attack("exit by system call", "syscall(231, 0)", killed=True),
    Attack("segmentation fault", "ctypes.string_at(0)", killed=None),
    Attack("SystemExit", "raise SystemExit(3)"),
    Attack("killing itself", "attempt(lambda: posix.kill(posix.getpid(), 9))"),
    Attack("no Python left", "builtins.__dict__.clear()", killed=None),
    Attack("broken output", "sys.stdout = None\nsys.stderr = None", killed=None),
    Attack("broken time", "modules['time'].clock_gettime = None\nmodules['time'].time = None"),
    Attack("a trap in str", "class T(str):\n    def __len__(self): return -1\n    def encode(self, *a): return b'x'\nprint(T('a'))"),
    Attack("lone surrogates", "print('\\ud800\\udfff')\napis.simple_note.create_note(title='\\ud800', content='x', access_token='t')", killed=None),
    Attack("half a character", "print('\\ud83d')", ("\ud83d",)),
    Attack("nothing but control characters", "print('\\0' * 1000, '\\x1b[2J', '\\x9b2J')", ("\0", "\x1b", "\x9b")),
    Attack("huge request", "apis.simple_note.create_note(title='x' * 50_000_000, content='x', access_token='t')", killed=None),
    Attack("late answer", "import time\nprint('late')\nmy_socket().send(b'{\"done\": \"early\"}\\n')", killed=None),
]


@pytest.fixture(scope="module")
def listener():
    """The port of a server on this machine and the list of connections to it."""
    server, visitors = socket.create_server(("127.0.0.1", 0)), []

    def listen():
        while True:
            try:
                visitors.append(server.accept())
            except OSError:
                return

    threading.Thread(target=listen, daemon=True).start()
    yield server.getsockname()[1], visitors
    server.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_is_contained(attack: Attack, client, loop, appworld_root: Path, task_ids: list[str], listener, tmp_path: Path):
    port, visitors = listener
    out, truth = tmp_path / "pwned", appworld_root.resolve() / "data" / "tasks" / task_ids[0] / "ground_truth" / "answer.json"
    os.chmod(tmp_path, 0o777)

    async def play() -> tuple[Execution, Execution, Judgement, Execution]:
        world, bystander = [await client.open(task_ids[0], f"attack{next(NUMBERS)}") for _ in range(2)]
        places = {"@OUT@": str(out), "@TRUTH@": str(truth), "@PORT@": str(port), "@TASK@": task_ids[0], "@WORLD@": str(await world.pid())}
        code = attack.code
        for name, value in places.items():
            code = code.replace(name, value)
        await world.execute(BREAK_OUT)
        execution = await world.execute(code)
        after, judgement = await world.execute("print('alive')"), await world.judge()
        beside = await bystander.execute("print(apis.supervisor.show_profile()['email'])")
        await world.close()
        await bystander.close()
        return execution, after, judgement, beside

    execution, after, judgement, beside = loop.run_until_complete(asyncio.wait_for(play(), 240))
    assert not [text for text in attack.never if text in execution.output], execution.output
    assert len(execution.output) < 2 * client.limits.output_chars
    if attack.killed is not None:
        assert (after.killed is not None) == attack.killed, (execution, after)
    assert not judgement.success
    assert "@" in beside.output and not beside.failed and beside.killed is None
    assert not out.exists() and not visitors
