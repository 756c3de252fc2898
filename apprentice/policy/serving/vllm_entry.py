"""vLLM's own OpenAI server, started the quick way on a CPU: its engine is forked from the process that has the imports, and does the worker's work itself.

vLLM spawns an engine and a worker anew on a CPU, and each imports everything again, which is most of its start. Run by the interpreter of vLLM's environment.
"""

import os
import sys

BLOCK_TOKENS = 32
"""What the prefix cache keeps on a CPU is whole blocks of so many tokens: with vLLM's 128 there, a turn computes most of the one before again."""


def suit_cpu() -> bool:
    """Where the platform is a CPU, makes vLLM fork its engine, keep the worker in it, and draw and normalise in less time; says whether it is."""
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
    _use_fast_sampling()
    _use_fused_rms_norm()
    return True


def _use_fast_sampling() -> None:
    """Noise for the whole vocabulary, and counting the tokens that are likelier than the one drawn (a function that is compiled for it), were an eighth of
    a decode step."""
    import torch
    from sampling import sample
    from vllm.v1.outputs import LogprobsTensors
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p
    from vllm.v1.sample.sampler import Sampler

    with_others = Sampler.gather_logprobs

    def forward_cpu(self, logits, generators, k, p):
        return sample(apply_top_k_top_p(logits, k, p), generators)

    def gather_logprobs(logprobs, num_logprobs, token_ids):
        if num_logprobs:
            return with_others(logprobs, num_logprobs, token_ids)
        drawn = token_ids.unsqueeze(-1)
        return LogprobsTensors(drawn.to(torch.int32), logprobs.gather(-1, drawn), torch.zeros_like(token_ids))

    TopKTopPSampler.forward_cpu = forward_cpu
    Sampler.gather_logprobs = staticmethod(gather_logprobs)


def _use_fused_rms_norm() -> None:
    """vLLM's kernel for it, which it uses on GPUs alone: a CPU's takes a seventh of the time of the operations one by one, 60 times a decode step."""
    import torch
    from vllm.model_executor.layers.layernorm import RMSNorm

    def forward_cpu(self, x, residual=None):
        if self.variance_size_override is not None or not self.has_weight or self.weight.dtype != x.dtype:
            return self.forward_native(x, residual)
        if residual is None:
            out = torch.empty_like(x)
            torch.ops._C.rms_norm(out, x, self.weight, self.variance_epsilon)
            return out
        torch.ops._C.fused_add_rms_norm(x, residual, self.weight, self.variance_epsilon)
        return x, residual

    RMSNorm.forward_cpu = forward_cpu


def main() -> None:
    """Serves with the command line's flags; on a CPU without compilation and without what only GPUs have.

    A prompt is computed in one piece there: for a seeded request whose prompt is split, vLLM winds its generator back, which a CPU's
    generator cannot do, and the engine dies of it.
    """
    if suit_cpu():
        sys.argv += ["--enforce-eager", "--no-enable-chunked-prefill", "--block-size", str(BLOCK_TOKENS)]
        sys.argv += ["--tensor-parallel-size", "1", "--no-enable-sleep-mode", "--dtype", os.environ["CPU_DTYPE"]]
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    serve()


if __name__ == "__main__":
    main()
