"""`python -m benchmarks`, `make bench`: every benchmark in turn, a table of each, and benchmarks/results.json, part after part.

Its keys are stable. Four say how near the limit we are and how far ahead of what else there is, each with median, least, most and number of rounds:
`grpo_step_vs_trl` (TRL's seconds over ours), `update_gemm_share` (of this machine's bf16 matrix products), `sampling_vs_engine_alone`,
`appworld_episodes_vs_stock` (a second and core). The others are what they come from.
"""

import argparse
import asyncio
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from apprentice.config import load_pipeline
from apprentice.processes import use_cores_sparingly
from apprentice.records.files import read_json, write_json
from benchmarks import appworld, grpo, sampling, storing, training
from benchmarks.figures import print_spreads

RESULTS = Path("benchmarks/results.json")
MINUTES = 18


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="of each")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    use_cores_sparingly()
    print(f"{', '.join(arguments.only)}: about {MINUTES * len(arguments.only) / len(PARTS):.0f} minutes", flush=True)
    for name in arguments.only:
        print(f"\n{name}", flush=True)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as own_process:  # DeepSpeed does not give back all that it held
            figures = own_process.submit(PARTS[name], arguments.rounds).result()
        print_spreads(figures)
        write_json(arguments.results, (read_json(arguments.results) if arguments.results.exists() else {}) | figures)
    print(f"\n{arguments.results}")


def _sampling(rounds: int) -> dict:
    return sampling.figures(sampling.measure("quick", tasks=8, attempts=4, rounds=rounds))


def _training(rounds: int) -> dict:
    from apprentice.policy.models import base_model

    return training.figures(training.measure(base_model(load_pipeline("quick").model.name), sequences=16, rounds=rounds))


def _appworld(rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        root = appworld.generate(appworld.PYTHON, Path(folder))
        found = asyncio.run(appworld.measure(appworld.PYTHON.absolute(), root, groups=2, group=8, rounds=rounds, in_flight=os.cpu_count()))
    return {name: found[name] for name in ("appworld_episodes_vs_stock", "appworld_episodes_per_second_and_core")}


def _grpo(rounds: int) -> dict:
    return _beside_trl("grpo", rounds, turns=1, new_tokens=64)


def _grpo_turns(rounds: int) -> dict:
    return _beside_trl("grpo_turns", rounds, turns=3, new_tokens=32)


def _beside_trl(name: str, rounds: int, turns: int, new_tokens: int) -> dict:
    grpo.install()
    found = grpo.measure(grpo.PYTHON, prompts=8, new_tokens=new_tokens, steps=rounds, turns=turns)
    return {f"{name}_step_vs_trl": found.pop("ratio")} | {f"{name}_{figure}": values for figure, values in found.items()}


PARTS: Mapping[str, Callable[[int], dict]] = {
    "grpo": _grpo, "grpo_turns": _grpo_turns, "training": _training, "sampling": _sampling, "appworld": _appworld, "storing": storing.figures,
}  # fmt: skip


if __name__ == "__main__":
    main()
