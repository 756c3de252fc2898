"""How fast the trainer is on this machine, against the matrix products it could do at best in the same minute.

    python benchmarks/training.py CHECKPOINT [--sequences 64] [--budgets 1024 2048 4096] [--compare] [--json FILE]

The batch is 150-250 tokens a sequence, 30-40 of them actions. Each figure is the best of `--repeats`, the variants taken in turn, so that
a busy machine disturbs all of them alike. FLOP a token: 6 N forward and backward (2 N forward), N = weights outside the embeddings, plus
the output embeddings at action tokens only; attention is not counted.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path

GEMM = 2048
GEMM_SECONDS = 1.0


def main() -> None:
    arguments = _arguments()
    import torch

    torch.set_num_threads(arguments.threads or torch.get_num_threads())
    trajectories = _trajectories(arguments.sequences)
    result = {"threads": torch.get_num_threads(), "gemm_gflops": {name: _gemm(getattr(torch, name)) for name in ("bfloat16", "float32")}}
    result |= _engine(arguments, trajectories)
    if arguments.compare:
        result["variants_tokens_per_second"] = _variants(arguments, trajectories[: arguments.compare_sequences])
    result["gemm_gflops_after"] = {name: _gemm(getattr(torch, name)) for name in ("bfloat16", "float32")}
    _print(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="folder of a causal language model")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--budgets", type=int, nargs="+", default=[2048], help="tokens a micro-batch")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, help="PyTorch's threads; its own choice otherwise")
    parser.add_argument("--compare", action="store_true", help="also padded batches, Transformers' own packing, autocast and fp32")
    parser.add_argument("--compare-sequences", type=int, default=10)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _trajectories(count: int) -> list:
    """Trajectories of random tokens: a prompt, a search, an observation and an answer."""
    from apprentice.records import Trajectory

    rng = random.Random(0)
    made = []
    for number in range(count):
        length, actions = rng.randint(150, 250), rng.randint(30, 40)
        ids = tuple(rng.randrange(5, 40_000) for _ in range(length))
        first = rng.randint(40, 60)
        mask = [0] * length
        mask[first : first + actions // 2] = [1] * (actions // 2)
        mask[length - (actions - actions // 2) :] = [1] * (actions - actions // 2)
        made.append(Trajectory(str(number), "t", "g", ids, tuple(mask), tuple(-1.0 * m for m in mask), (), 1.0, "success", "", 0, 1.0))
    return made


def _gemm(dtype) -> float:
    """GFLOP/s of square matrix products."""
    import torch

    left, right = (torch.randn(GEMM, GEMM).to(dtype) for _ in range(2))
    left @ right
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < GEMM_SECONDS:
        left @ right
        count += 1
    return 2 * GEMM**3 * count / (time.perf_counter() - began) / 1e9


def _engine(arguments: argparse.Namespace, trajectories: list) -> dict:
    """The trainer itself: forward, forward and backward, optimizer step, for each token budget."""
    import torch

    from apprentice.learning.engine import Engine
    from apprentice.learning.models import Actor, load_language_model
    from apprentice.learning.packing import pack

    engine = Engine(Actor(load_language_model(arguments.checkpoint, torch.bfloat16)), learning_rate=1e-6, max_gradient_norm=1.0)
    tokens = sum(len(trajectory.token_ids) for trajectory in trajectories)
    actions = sum(trajectory.action_tokens for trajectory in trajectories)
    model = engine.module.language_model
    embeddings = model.get_output_embeddings().weight.numel()
    body = sum(parameter.numel() for parameter in model.base_model.parameters()) - model.get_input_embeddings().weight.numel()
    work = 2 * (body * tokens + embeddings * actions)
    result = {"tokens": tokens, "action_tokens": actions, "forward_gflop": work / 1e9, "budgets": {}}
    for budget in arguments.budgets:
        batches = pack(trajectories, budget)
        forward = _best(lambda batches=batches: _forward(engine, batches), arguments.repeats)
        both = _best(lambda batches=batches: _backward(engine, batches, actions), arguments.repeats)
        step = _timed(lambda: engine.step(1e-6))
        result["budgets"][str(budget)] = {
            "micro_batches": len(batches),
            "forward_tokens_per_second": tokens / forward,
            "forward_backward_tokens_per_second": tokens / both,
            "forward_gflops": work / forward / 1e9,
            "forward_backward_gflops": 3 * work / both / 1e9,
            "optimizer_step_seconds": step,
        }
    return result


def _forward(engine, batches: list) -> None:
    import torch

    with torch.no_grad():
        for batch in batches:
            engine(batch, 1.0, True)


def _backward(engine, batches: list, actions: int) -> None:
    for batch in batches:
        engine.accumulate(-engine(batch).logprobs.sum() / actions)


def _variants(arguments: argparse.Namespace, trajectories: list) -> dict[str, float]:
    """Forward and backward of one micro-batch through plain PyTorch, in the ways one could do it."""
    import torch

    from apprentice.learning.models import load_language_model

    load_language_model(arguments.checkpoint, torch.float32)
    plans = {
        "packed, this attention, bf16": ("packed", torch.bfloat16, True, False),
        "packed, Transformers' mask, bf16 autocast": ("sdpa", torch.float32, True, True),
        "packed, this attention, fp32": ("packed", torch.float32, True, False),
        "packed, Transformers' mask, bf16": ("sdpa", torch.bfloat16, True, False),
        "padded, bf16": ("sdpa", torch.bfloat16, False, False),
    }
    runs = {name: _variant(arguments.checkpoint, trajectories, *plan) for name, plan in plans.items()}
    tokens = sum(len(trajectory.token_ids) for trajectory in trajectories)
    seconds = {name: float("inf") for name in runs}
    for _ in range(arguments.repeats + 1):
        for name, run in runs.items():
            seconds[name] = min(seconds[name], _timed(run))
    return {name: tokens / value for name, value in seconds.items()}


def _variant(checkpoint: Path, trajectories: list, attention: str, dtype, packed: bool, autocast: bool) -> Callable[[], None]:
    import torch
    from transformers import AutoModelForCausalLM

    from apprentice.learning.packing import pack

    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, attn_implementation=attention).train()
    if packed:
        (batch,) = pack(trajectories, 10**9)
        inputs = {"input_ids": batch.token_ids, "position_ids": batch.position_ids}
        inputs |= {"lengths": batch.lengths} if attention == "packed" else {}
    else:
        longest = max(len(trajectory.token_ids) for trajectory in trajectories)
        rows = [list(trajectory.token_ids) + [0] * (longest - len(trajectory.token_ids)) for trajectory in trajectories]
        masks = [[1] * len(trajectory.token_ids) + [0] * (longest - len(trajectory.token_ids)) for trajectory in trajectories]
        inputs = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}
    actions = sum(trajectory.action_tokens for trajectory in trajectories)

    def run() -> None:
        model.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            hidden = model.base_model(**inputs, use_cache=False).last_hidden_state.flatten(0, 1)[:actions]
            logits = model.lm_head(hidden)
        (-logits.float().log_softmax(-1)[:, 0].mean()).backward()

    return run


def _best(work: Callable[[], None], repeats: int) -> float:
    return min(_timed(work) for _ in range(repeats))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _print(result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    peak = max(result["gemm_gflops"]["bfloat16"], result["gemm_gflops_after"]["bfloat16"])
    table = Table("micro-batch", "forward tok/s", "of peak", "forward+backward tok/s", "of peak", "optimizer step s", title=f"bf16 peak {peak:.0f} GFLOP/s")
    for budget, row in result["budgets"].items():
        shares = [f"{row[name] / peak:.0%}" for name in ("forward_gflops", "forward_backward_gflops")]
        forward, both = (f"{row[name]:.0f}" for name in ("forward_tokens_per_second", "forward_backward_tokens_per_second"))
        table.add_row(budget, forward, shares[0], both, shares[1], f"{row['optimizer_step_seconds']:.2f}")
    Console().print(table)
    for name, speed in result.get("variants_tokens_per_second", {}).items():
        print(f"{speed:7.0f} tok/s  {name}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
