"""vLLM's own OpenAI server, started the quick way on a CPU: its engine is forked from the process that has the imports, and does the worker's work itself.

vLLM spawns an engine and a worker anew on a CPU, and each imports everything again, which is most of its start. Run by the interpreter of vLLM's environment.
"""

import os
import sys

BLOCK_TOKENS = 32
"""What the prefix cache keeps on a CPU is whole blocks of so many tokens: with vLLM's 128 there, a turn computes most of the one before again."""


def suit_cpu() -> bool:
    """Where the platform is a CPU, makes vLLM fork its engine, keep the worker in it, compile nothing and draw tokens by `draw`; says whether it is."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return False
    platform = type(current_platform)
    original = platform.check_and_update_config.__func__

    def check_and_update_config(cls, vllm_config) -> None:
        original(cls, vllm_config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        vllm_config.parallel_config.distributed_executor_backend = "uni"  # vLLM's reason against it, OpenMP's variables, are set before this process starts

    platform.check_and_update_config = classmethod(check_and_update_config)
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    os.environ["TORCHDYNAMO_DISABLE"] = "1"  # else counting likelier tokens is compiled: two to three seconds at the first token, for nothing to be felt later
    _draw_tokens_fast()
    return True


def _draw_tokens_fast() -> None:
    from drawing import draw
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p

    def forward_cpu(self, logits, generators, k, p):
        return draw(apply_top_k_top_p(logits, k, p), generators)

    TopKTopPSampler.forward_cpu = forward_cpu


def main() -> None:
    """Serves with the command line's flags; on a CPU without compilation and without what only GPUs have.

    A prompt is computed in one piece there: for a seeded request whose prompt is split, vLLM winds its generator back, which a CPU's
    generator cannot do, and the engine dies of it.
    """
    if suit_cpu():
        sys.argv += ["--enforce-eager", "--no-enable-chunked-prefill", "--block-size", str(BLOCK_TOKENS)]
        sys.argv += ["--tensor-parallel-size", "1", "--no-enable-sleep-mode"]
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    serve()


if __name__ == "__main__":
    main()
