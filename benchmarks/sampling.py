"""Compares the sampling speed of the simulator with that of vLLM's engine alone in one run.

    python -m benchmarks.sampling

The simulator plays episodes of the generated organisation (tools, several turns) through the policy server. vLLM's
engine, alone in a process with the server's settings, then receives the same prompts turn by turn and samples as many
tokens, without HTTP, tools, or parsing. Rounds alternate, so that load on the machine slows both alike.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apprentice.config import Layout, PipelineConfig, load_pipeline
from apprentice.policy.server import GIB, engine_environment, interpreter
from apprentice.processes.limits import use_cores_sparingly
from apprentice.records import Trajectory
from apprentice.records.files import write_json
from benchmarks.metrics import print_spreads, spread


@dataclass(frozen=True)
class Round:
    """One round: both sides sample the same number of tokens."""

    tokens: int
    """Tokens of all episodes, prompts and observations included."""
    sampled_tokens: int
    ours_seconds: float
    engine_seconds: float


class EngineAlone:
    """vLLM's engine in a separate process."""

    def __init__(self, config: PipelineConfig, checkpoint: Path, log: Path):
        settings = {
            "model": str(checkpoint), "max_model_len": config.policy.max_context, "max_num_seqs": config.policy.max_sequences,
            "kv_cache_memory_bytes": round(config.policy.kv_cache_gib * GIB),
        }  # fmt: skip
        command = [str(interpreter()), str(Path(__file__).with_name("engine_side.py")), json.dumps(settings)]
        environment = {name: value for name, value in (os.environ | engine_environment(config.policy)).items() if value is not None}
        self._log = log
        with log.open("w") as errors:
            self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)

    def replay(self, trajectories: Sequence[Trajectory]) -> float:
        """Samples as many tokens as each turn of the trajectories did; returns the seconds."""
        self._child.stdin.write(json.dumps([turns(trajectory) for trajectory in trajectories]) + "\n")
        self._child.stdin.flush()
        for line in self._child.stdout:
            if line.startswith("TOOK "):
                return float(line[5:])
        raise SystemExit(f"the engine ended with exit code {self._child.wait()}:\n{self._log.read_text()[-2000:]}")

    def close(self) -> None:
        """Ends the process and its children."""
        self._child.stdin.close()
        self._child.wait()


def turns(trajectory: Trajectory) -> list[tuple[list[int], int]]:
    """Returns the prompt of each turn and the number of tokens that were sampled from it."""
    return [(list(trajectory.token_ids[: turn.start]), turn.end - turn.start) for turn in trajectory.turns]


def measure(pipeline: str, tasks: int, attempts: int, rounds: int) -> list[Round]:
    """Measures `rounds` of `tasks` x `attempts` episodes after a warm-up round, on a policy server and an engine of its
    own."""
    config = load_pipeline(pipeline)
    own_port = config.model_copy(update={"policy": config.policy.model_copy(update={"port": 0})})
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(own_port, Layout(pipeline, Path(folder)), tasks, attempts, rounds))


async def _measure(config: PipelineConfig, layout: Layout, count: int, attempts: int, rounds: int) -> list[Round]:
    from apprentice.environments.usecase import use_case
    from apprentice.policy.base_models import base_model
    from apprentice.policy.chat import ChatFormat
    from apprentice.policy.factory import open_policy
    from apprentice.records.tables import write_passages
    from apprentice.rollout.setup import make_simulator
    from apprentice.rollout.simulator import plan_episodes
    from apprentice.usecases.deepsearch.source.organisation.generate import generate

    tasks, passages = generate(seed=0, train=count, dev=1)
    tasks = [task for task in tasks if task.split == "train"]
    write_passages(layout.corpus, passages)
    base, found = base_model(config.model.name).absolute(), []
    alone = EngineAlone(config, base, layout.root / "engine.log")
    try:
        async with use_case(config, layout).opened(ChatFormat(base).encode) as make_environment, open_policy(config, layout, base) as policy:
            simulator = make_simulator(config, make_environment, policy, base, temperature=1.0)
            for number in range(rounds + 1):
                began = time.perf_counter()
                played = await simulator.run(plan_episodes(tasks, attempts, seed=number, tag=f"round{number}"))
                seconds = time.perf_counter() - began
                sampled = sum(turn.end - turn.start for trajectory in played for turn in trajectory.turns)
                tokens = sum(len(trajectory.token_ids) for trajectory in played)
                found.append(Round(tokens, sampled, seconds, await asyncio.to_thread(alone.replay, played)))
                remark = "" if number else " (to warm up)"
                print(f"round {number}: ours {seconds:.1f} s, engine alone {found[-1].engine_seconds:.1f} s{remark}", flush=True)
    finally:
        alone.close()
    return found[1:]


def metrics(rounds: Sequence[Round]) -> dict:
    """Returns the spread of every metric over the rounds."""
    return {
        "sampling_vs_engine_alone": spread([each.engine_seconds / each.ours_seconds for each in rounds]),
        "sampled_tokens_per_second": spread([each.sampled_tokens / each.ours_seconds for each in rounds]),
        "episode_tokens_per_second": spread([each.tokens / each.ours_seconds for each in rounds]),
        "engine_sampled_tokens_per_second": spread([each.sampled_tokens / each.engine_seconds for each in rounds]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", default="quick")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--attempts", type=int, default=4, help="episodes per task (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the metrics to this file")
    arguments = parser.parse_args()
    use_cores_sparingly()
    found = metrics(measure(arguments.pipeline, arguments.tasks, arguments.attempts, arguments.rounds))
    print_spreads(found)
    if arguments.json:
        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
