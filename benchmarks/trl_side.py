"""Runs TRL's trainer for `benchmarks.grpo`, in .venv-trl.

    python trl_side.py '{"checkpoint": …, "prompts": […], "observation": …, "attempts": 4, "turns": 3, "new_tokens": 32,
                         "max_tokens": 496, "steps": 4}'

It takes a step for each line of input and prints the step's measurements.
"""

import json
import sys
import tempfile
import time

import torch
from datasets import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerBase, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

JOB = json.loads(sys.argv[1])
CHAT_TEMPLATE = """
{%- for message in messages -%}
{{ '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\\n' + message.content }}
{%- for call in message.tool_calls -%}
{{ call.function.name + '(' + call.function.arguments | tojson + ')' }}
{%- endfor -%}
{{ '<|im_end|>\\n' }}
{%- endfor -%}
{{ '<|im_start|>assistant\\n' if add_generation_prompt }}"""
"""ChatML without a system message. A tool's output is a user message, as in Apprentice. TRL requires that the template
renders tool calls."""
RESPONSE_TEMPLATE = {
    "defaults": {"role": "assistant"},
    "start_anchor": "<|im_start|>assistant\n",
    "fields": {
        "tool_calls": {
            "open_pattern": "^",
            "close": "<|im_end|>",
            "repeats": True,
            "transform": {"type": "function", "function": {"name": "say", "arguments": {"text": "{content}"}}},
        }
    },
}
"""Parses every message of the model as one call of `say`."""


class Conversation:
    """`benchmarks.grpo.Conversation` as an environment of TRL, which runs no tool after the last turn."""

    def reset(self, **_) -> None:
        """Does nothing: the data set provides the prompt."""

    def say(self, text: str) -> str:
        """Says something.

        Args:
            text: What to say.
        """
        return JOB["observation"]


def distinct_words(completions: list[list[dict]], **_) -> list[float]:
    """Returns the rewards of `benchmarks.grpo.Conversation`."""
    episodes = [" ".join(call["function"]["arguments"]["text"] for message in talk for call in message.get("tool_calls", ())) for talk in completions]
    return [len(set(text.split())) / max(1, len(text.split())) for text in episodes]


class Steps(TrainerCallback):
    """Waits for a line of input before each step and prints a report after it."""

    trainer: GRPOTrainer

    def on_step_begin(self, *_, **__) -> None:
        sys.stdin.readline()
        self.began = time.perf_counter()

    def on_step_end(self, *_, **__) -> None:
        took = time.perf_counter() - self.began
        metrics = self.trainer._metrics["train"]
        sampled = metrics["completions/mean_length"][-1] * len(JOB["prompts"]) * JOB["attempts"]
        report = {"seconds": took, "sampled_tokens": sampled, "turns": 1 + (metrics["tools/call_frequency"][-1] if JOB["turns"] > 1 else 0)}
        print(f"STEP {json.dumps(report)}", flush=True)


def chat_tokenizer() -> PreTrainedTokenizerBase:
    """Returns the checkpoint's tokenizer with both templates."""
    tokenizer = AutoTokenizer.from_pretrained(JOB["checkpoint"])
    tokenizer.chat_template, tokenizer.response_template = CHAT_TEMPLATE, RESPONSE_TEMPLATE
    return tokenizer


def main() -> None:
    episodes = len(JOB["prompts"]) * JOB["attempts"]
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder,
            use_cpu=not torch.cuda.is_available(),
            model_init_kwargs={"dtype": "bfloat16"},
            per_device_train_batch_size=episodes,
            num_generations=JOB["attempts"],
            max_completion_length=JOB["max_tokens"],
            generation_kwargs={"max_new_tokens": JOB["new_tokens"]},
            max_tool_calling_iterations=JOB["turns"] - 1,
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
        steps.trainer = GRPOTrainer(
            model=JOB["checkpoint"],
            reward_funcs=distinct_words,
            args=config,
            train_dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in JOB["prompts"]]}),
            processing_class=chat_tokenizer(),
            callbacks=[steps],
            environment_factory=Conversation if JOB["turns"] > 1 else None,
        )
        steps.trainer.train()


if __name__ == "__main__":
    main()
