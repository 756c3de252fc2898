"""The parts of `python -m benchmarks`. Each takes a number of rounds and returns the spread of every metric."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from apprentice.config import load_pipeline
from benchmarks import appworld, grpo, sampling, storing, training


def _sampling(rounds: int) -> dict:
    return sampling.metrics(sampling.measure("quick", tasks=8, attempts=4, rounds=rounds))


def _training(rounds: int) -> dict:
    from apprentice.policy.base_models import base_model

    return training.metrics(training.measure(base_model(load_pipeline("quick").model.name), sequences=16, rounds=rounds))


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
    return {f"{name}_step_vs_trl": found.pop("ratio")} | {f"{name}_{metric}": values for metric, values in found.items()}


PARTS: Mapping[str, Callable[[int], dict]] = {
    "grpo": _grpo, "grpo_turns": _grpo_turns, "training": _training, "sampling": _sampling, "appworld": _appworld, "storing": storing.metrics,
}  # fmt: skip
