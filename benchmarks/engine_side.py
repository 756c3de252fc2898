"""Runs vLLM's engine alone for `benchmarks.sampling`, in vLLM's environment, and prints the seconds of each input line.

    python engine_side.py '{"model": …, "max_model_len": 1024, "max_num_seqs": 64, "kv_cache_memory_bytes": 1073741824}'

A line of input is a JSON list of episodes. An episode is a list of turns, and a turn holds the token ids of its prompt
and the number of tokens to sample.
"""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "apprentice" / "policy" / "serving"))
SETTINGS = json.loads(sys.argv[1])
BATCHED_TOKENS = 2048


async def serve() -> None:
    """Samples the episodes of each line until the input ends."""
    from vllm import SamplingParams
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM
    from vllm_entry import BLOCK_TOKENS

    arguments = AsyncEngineArgs(
        **SETTINGS, block_size=BLOCK_TOKENS, dtype=os.environ["CPU_DTYPE"], max_num_batched_tokens=BATCHED_TOKENS, enforce_eager=True,
        enable_chunked_prefill=False, enable_prefix_caching=True, logprobs_mode="processed_logprobs",
    )  # fmt: skip
    engine = AsyncLLM.from_engine_args(arguments)

    async def play(episode: list, number: int, line: int) -> None:
        for turn, (prompt, tokens) in enumerate(episode):
            sampling = SamplingParams(temperature=1.0, seed=number, max_tokens=tokens, ignore_eos=True, logprobs=0, detokenize=False)
            async for _ in engine.generate({"prompt_token_ids": prompt}, sampling, f"{line}-{number}-{turn}"):
                pass

    line = 0
    while text := await asyncio.to_thread(sys.stdin.readline):
        episodes, line = json.loads(text), line + 1
        began = time.perf_counter()
        await asyncio.gather(*(play(episode, number, line) for number, episode in enumerate(episodes)))
        print(f"TOOK {time.perf_counter() - began}", flush=True)
    engine.shutdown()


if __name__ == "__main__":
    from vllm_entry import patch_for_cpu

    patch_for_cpu()
    asyncio.run(serve())
