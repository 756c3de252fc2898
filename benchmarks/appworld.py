"""Compares the throughput of the engine with that of AppWorld's own HTTP server in one run.

    python -m benchmarks.appworld

Both sides play the same scripted episodes of 30 API calls in 10 blocks, are judged, and must return the same
observations and verdicts. They take turns, so that load on the machine slows both alike. The main metric is episodes
per second of processor time, which counts every process of a side including its client; wall-clock time is reported
too.
"""

import argparse
import asyncio
import http.client
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from apprentice.processes.children import spawn
from apprentice.processes.network import free_port
from apprentice.records.files import write_json
from apprentice.usecases.assistant.config import ENGINE
from apprentice.usecases.assistant.environment.client import AppWorldClient
from apprentice.usecases.assistant.environment.episode import EpisodeLimits
from benchmarks.metrics import spread

TICKS = os.sysconf("SC_CLK_TCK")
SERVER_START_S = 120.0
PYTHON = Path(".venv-appworld/bin/python")
LIVE = 16
"""Number of worlds that are open while memory is measured."""

BLOCKS = (
    "print(apis.api_docs.show_app_descriptions())\nprint(apis.supervisor.show_profile())",
    "print(apis.api_docs.show_api_descriptions(app_name='simple_note'))",
    "print(apis.api_docs.show_api_doc(app_name='simple_note', api_name='login'))\n"
    "print(apis.api_docs.show_api_doc(app_name='simple_note', api_name='create_note'))",
    "passwords = {p['account_name']: p['password'] for p in apis.supervisor.show_account_passwords()}\nme = apis.supervisor.show_profile()\n"
    "note = apis.simple_note.login(username=me['email'], password=passwords['simple_note'])['access_token']\nprint(len(note) > 0)",
    "for page in range(4):\n    print([n['title'] for n in apis.simple_note.search_notes(page_index=page, page_limit=5, access_token=note)])",
    "ids = [apis.simple_note.create_note(title=f'Note {i}', content='x' * 40, access_token=note)['note_id'] for i in range(4)]\nprint(len(ids))",
    "for i in ids: print(apis.simple_note.show_note(note_id=i, access_token=note)['title'])",
    "print(apis.simple_note.show_note(note_id=10**9, access_token=note))",
    "spotify = apis.spotify.login(username=me['email'], password=passwords['spotify'])['access_token']\n"
    "for page in range(4): print(apis.spotify.show_song_library(page_index=page, page_limit=5, access_token=spotify))",
    "for i in ids: apis.simple_note.delete_note(note_id=i, access_token=note)\nprint(apis.supervisor.complete_task(answer='none'))",
)
"""A typical episode of 30 API calls: documentation, logins, reads, writes, and one error."""


@dataclass(frozen=True)
class Played:
    """The outputs and verdict of one episode."""

    outputs: tuple[str, ...]
    success: bool
    passes: int


@dataclass(frozen=True)
class Speed:
    """The throughput of one side."""

    episodes: int
    wall_seconds: float
    cpu_seconds: float

    @property
    def per_core(self) -> float:
        """Episodes per second of processor time."""
        return self.episodes / self.cpu_seconds


class Server:
    """AppWorld's unmodified environment server with a client."""

    def __init__(self, python: Path, root: Path, folder: Path):
        self.port = free_port()
        (folder / "data").symlink_to(root.absolute() / "data")
        command = [str(python.with_name("appworld")), "serve", "environment", "--port", str(self.port), "--root", str(folder)]
        variables = {"APPWORLD_ROOT": str(folder), "IPYTHONDIR": str(folder / "ipython"), "PYTHONWARNINGS": "ignore"}
        self.child = spawn(command, log=folder / "server.log", env=variables, cwd=folder)
        _wait_for(self.port, self.child, folder / "server.log")

    def play(self, task_id: str, name: str) -> Played:
        """Plays one episode over HTTP."""
        self._post("initialize", task_id=task_id, experiment_name=name)
        outputs = tuple(self._post("execute", task_id=task_id, code=block) for block in BLOCKS)
        report = self._post("evaluate", task_id=task_id, suppress_errors=True)
        self._post("close", task_id=task_id)
        return Played(outputs, report["success"], len(report["passes"]))

    def _post(self, method: str, **arguments):
        # One connection per request, as in AppWorld's own client: opening and closing a task moves the server's clock
        # and thus its idle timers.
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("POST", f"/{method}", json.dumps(arguments), {"content-type": "application/json", "connection": "close"})
        response = connection.getresponse()
        body = response.read()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{method}: {response.status} {body[:500]!r}")
        return json.loads(body)["output"]


def _wait_for(port: int, child, log: Path) -> None:
    deadline = time.monotonic() + SERVER_START_S
    while time.monotonic() < deadline and child.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit(f"AppWorld's server did not start: see {log.read_text()[-2000:]}")


def tree(pid: int) -> Iterator[int]:
    """Yields a process id and the ids of all its descendants."""
    yield pid
    try:
        children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from tree(child)


def cpu_seconds(pid: int) -> float:
    """Returns the processor seconds of a process tree, including children that have exited."""
    total = 0
    for member in tree(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def memory_mb(pids: list[int]) -> float:
    """Returns the proportional set size: each process counts its share of shared memory."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


async def play(client: AppWorldClient, task_id: str, name: str) -> Played:
    """Plays one episode on the engine."""
    world = await client.open(task_id, name)
    outputs = tuple([(await world.execute(block)).output for block in BLOCKS])
    judgement = await world.judge()
    await world.close()
    return Played(outputs, judgement.success, judgement.passes)


async def ours(client: AppWorldClient, jobs: list[tuple[str, str]], in_flight: int) -> list[Played]:
    """Plays all `jobs`, pairs of a task id and an episode name, with at most `in_flight` running concurrently."""
    gate = asyncio.Semaphore(in_flight)

    async def one(job: tuple[str, str]) -> Played:
        async with gate:
            return await play(client, *job)

    return await asyncio.gather(*(one(job) for job in jobs))


async def phases(client: AppWorldClient, task_id: str, episodes: int) -> dict[str, float]:
    """Returns the median milliseconds of each phase of an episode that has the engine to itself."""
    times: dict[str, list[float]] = {"open": [], "blocks": [], "one API call": [], "an empty block": [], "flush and judge": []}
    for number in range(episodes):
        marks = [time.perf_counter()]
        world = await client.open(task_id, f"phase{number}")
        marks.append(time.perf_counter())
        for block in BLOCKS:
            await world.execute(block)
        marks.append(time.perf_counter())
        await world.execute("for _ in range(20): apis.supervisor.show_profile()")
        marks.append(time.perf_counter())
        await world.execute("x = 1")
        marks.append(time.perf_counter())
        await world.judge()
        marks.append(time.perf_counter())
        await world.close()
        for name, begin, end in zip(times, marks, marks[1:], strict=False):
            times[name].append((end - begin) * (50 if name == "one API call" else 1000))
    return {name: statistics.median(values) for name, values in times.items()}


async def live_memory(client: AppWorldClient, task_ids: list[str]) -> float:
    """Returns the MB that one more live world and its interpreter need after a few blocks."""
    before = memory_mb(list(tree(client.pid)))
    worlds = [await client.open(task_ids[number % 4], f"live{number}") for number in range(LIVE)]
    for world in worlds:
        for block in BLOCKS[:-1]:
            await world.execute(block)
    after = memory_mb(list(tree(client.pid)))
    for world in worlds:
        await world.close()
    return (after - before) / LIVE


async def measure(python: Path, root: Path, groups: int, group: int, rounds: int, in_flight: int) -> dict:
    """Starts both sides, lets them play in turn, and returns the metrics."""
    task_ids = sorted(path.name for path in (root / "data" / "tasks").iterdir())
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as stock:
        server = await asyncio.to_thread(Server, python, root, Path(stock))
        client = AppWorldClient(python, root, Path(scratch), limits=EpisodeLimits(timeout_s=120))
        await client.start()
        try:
            return await _compare(server, client, task_ids, groups, group, rounds, in_flight)
        finally:
            await client.close()
            await asyncio.to_thread(server.child.stop)


async def _compare(server: Server, client: AppWorldClient, task_ids: list[str], groups: int, group: int, rounds: int, in_flight: int) -> dict:
    reference = server.play(task_ids[0], "warm")
    warm = await play(client, task_ids[0], "warm-up")
    if reference != warm:
        raise SystemExit(f"the two sides differ: {[pair for pair in zip(reference.outputs, warm.outputs, strict=True) if pair[0] != pair[1]]}")
    totals: dict[str, list] = {"stock": [0, 0.0, 0.0], "ours": [0, 0.0, 0.0]}
    ratios, per_core = [], []
    for number in range(rounds):
        chosen = [task_ids[(number * groups + index) % len(task_ids)] for index in range(groups)]
        jobs = [(task_id, f"r{number}-{task_id}-{copy}") for task_id in chosen for copy in range(group)]
        results, cores = {}, {}
        for side in ("stock", "ours"):
            pid = server.child.pid if side == "stock" else client.supervisor_pid
            wall, cpu, own = time.perf_counter(), cpu_seconds(pid), time.process_time()
            if side == "stock":
                results[side] = await asyncio.to_thread(lambda jobs=jobs: [server.play(*job) for job in jobs])
            else:
                results[side] = await ours(client, jobs, in_flight)
            cores[side] = cpu_seconds(pid) - cpu + time.process_time() - own
            took = (len(jobs), time.perf_counter() - wall, cores[side])
            totals[side] = [total + part for total, part in zip(totals[side], took, strict=True)]
        if results["stock"] != results["ours"]:
            raise SystemExit("observations or verdicts differ")
        ratios.append(cores["stock"] / cores["ours"])
        per_core.append(len(jobs) / cores["ours"])
        print(f"round {number}: {ratios[-1]:.2f} times as many episodes per second and core", flush=True)
    speeds = {side: Speed(*values) for side, values in totals.items()}
    return {
        "stock": {**asdict(speeds["stock"]), "per_core": speeds["stock"].per_core},
        "ours": {**asdict(speeds["ours"]), "per_core": speeds["ours"].per_core},
        "appworld_episodes_vs_stock": spread(ratios),
        "appworld_episodes_per_second_and_core": spread(per_core),
        "phases_ms": await phases(client, task_ids[0], 5),
        "live_world_mb": await live_memory(client, task_ids),
        "idle_engine_mb": memory_mb(list(tree(client.pid))),
        "stock_server_mb": memory_mb(list(tree(server.child.pid))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.appworld", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, default=PYTHON)
    parser.add_argument("--root", type=Path, help="an AppWorld data root (default: generate a small one)")
    parser.add_argument("--groups", type=int, default=2, help="tasks per round (default: %(default)s)")
    parser.add_argument("--group", type=int, default=8, help="episodes per task (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--in-flight", type=int, default=os.cpu_count(), help="concurrent episodes on the engine (default: one per CPU)")
    parser.add_argument("--json", type=Path, help="also write the metrics to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.root or generate(arguments.python, Path(folder))
        metrics = asyncio.run(measure(arguments.python.absolute(), root.absolute(), arguments.groups, arguments.group, arguments.rounds, arguments.in_flight))
    for side, name in (("stock", "AppWorld's HTTP server"), ("ours", "engine")):
        speed = metrics[side]
        wall, cpu = speed["wall_seconds"] / speed["episodes"], speed["cpu_seconds"] / speed["episodes"]
        print(f"{name:<24} {speed['per_core']:6.2f} episodes/s per core   {1e3 * cpu:6.0f} ms of processor time, {1e3 * wall:6.0f} ms of wall time per episode")
    print(f"{'ratio per core':<24} {metrics['appworld_episodes_vs_stock']['median']:6.2f}")
    print("ms: " + ", ".join(f"{name} {value:.1f}" for name, value in metrics["phases_ms"].items()))
    print(f"MB: live world {metrics['live_world_mb']:.0f}, idle engine {metrics['idle_engine_mb']:.0f}, server {metrics['stock_server_mb']:.0f}")
    if arguments.json:
        write_json(arguments.json, metrics)


def generate(python: Path, root: Path) -> Path:
    """Generates a small data root and returns its path."""
    command = [str(python.absolute()), "-m", "generator", "--root", str(root), "--seed", "7", "--scenarios", "3"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ENGINE)}, check=True, stdout=subprocess.DEVNULL)
    return root


if __name__ == "__main__":
    main()
