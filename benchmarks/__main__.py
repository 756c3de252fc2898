"""`python -m benchmarks`: rollout and training speed of the base model, as tokens a second and as a share of this machine's bf16 matrix products."""

import argparse
import json
from pathlib import Path

from apprentice.config import load_pipeline
from apprentice.processes import use_cores_sparingly
from benchmarks import rollout


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--pipeline", default="quick")
    parser.add_argument("--tasks", type=int, default=8, help="tasks of the rollout")
    parser.add_argument("--attempts", type=int, default=4, help="episodes a task")
    parser.add_argument("--sequences", type=int, default=16, help="trajectories of the update")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    use_cores_sparingly()

    from apprentice.policy.models import base_model
    from benchmarks import training

    print("Starting a policy server, then the rollout, then the trainer: about 2 minutes", flush=True)
    speed = rollout.measure(arguments.pipeline, arguments.tasks, arguments.attempts)
    update = training.measure(base_model(load_pipeline(arguments.pipeline).model.name), arguments.sequences)
    sampling = update.forward_flop(speed.tokens, speed.sampled_tokens) / speed.seconds
    rows = [
        ("rollout (simulator and policy server)", speed.tokens / speed.seconds, sampling),
        ("log-probabilities (forward)", update.tokens / update.forward_seconds, update.flop / update.forward_seconds),
        ("update (forward and backward)", update.tokens / update.both_seconds, 3 * update.flop / update.both_seconds),
    ]
    print(f"bf16 matrix products: {update.peak / 1e9:.0f} GFLOP/s")
    for name, tokens, flops in rows:
        print(f"{name:<40} {tokens:8.0f} tok/s {flops / 1e9:6.0f} GFLOP/s {flops / update.peak:6.0%} of peak")
    print(f"{'update, attempts that share two thirds':<40} {update.tokens / update.group_seconds:8.0f} tok/s")
    print(f"{'sampled':<40} {speed.sampled_tokens / speed.seconds:8.0f} tok/s")
    print(f"{'optimizer step':<40} {update.step_seconds:8.2f} s")
    if arguments.json:
        figures = {name: {"tokens_per_second": tokens, "share_of_peak": flops / update.peak} for name, tokens, flops in rows}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
