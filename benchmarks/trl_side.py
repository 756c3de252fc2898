"""TRL's side of `benchmarks.grpo`: runs in .venv-trl, takes a step whenever a line comes in, and says what the step took.

python trl_side.py '{"checkpoint": …, "prompts": […], "attempts": 4, "new_tokens": 64, "steps": 4}'
"""

import json
import sys
import tempfile
import time

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

JOB = json.loads(sys.argv[1])


def distinct_words(completions: list[str], **_) -> list[float]:
    """The reward of `benchmarks.grpo.OneTurn`."""
    return [len(set(text.split())) / max(1, len(text.split())) for text in completions]


class Steps(TrainerCallback):
    """Waits before each step, reports after it."""

    trainer: GRPOTrainer

    def on_step_begin(self, *_, **__) -> None:
        sys.stdin.readline()
        self.began = time.perf_counter()

    def on_step_end(self, *_, **__) -> None:
        took = time.perf_counter() - self.began
        length = self.trainer._metrics["train"]["completions/mean_length"][-1]
        report = {"seconds": took, "sampled_tokens": length * len(JOB["prompts"]) * JOB["attempts"]}
        print(f"STEP {json.dumps(report)}", flush=True)


def main() -> None:
    episodes = len(JOB["prompts"]) * JOB["attempts"]
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=not torch.cuda.is_available(),
            model_init_kwargs={"dtype": "bfloat16"},
            per_device_train_batch_size=episodes,
            num_generations=JOB["attempts"],
            max_completion_length=JOB["new_tokens"],
            max_steps=JOB["steps"],
            gradient_checkpointing=False,
            learning_rate=1e-6,
            beta=0.0,
            temperature=1.0,
            shuffle_dataset=False,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            seed=0,
        )
        steps = Steps()
        data = Dataset.from_dict({"prompt": JOB["prompts"]})
        steps.trainer = GRPOTrainer(model=JOB["checkpoint"], reward_funcs=distinct_words, args=config, train_dataset=data, callbacks=[steps])
        steps.trainer.train()


if __name__ == "__main__":
    main()
