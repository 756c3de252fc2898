"""Entry point of vLLM's OpenAI server, with a faster start and faster sampling on a CPU.

On a CPU, vLLM spawns an engine process and a worker process, and each repeats all imports, which take most of the
start. Here the engine is forked from the process that has done the imports, and the worker runs inside the engine.
The interpreter of vLLM's environment runs this file.
"""

import os
import sys

BLOCK_TOKENS = 32
"""Tokens in a block of the prefix cache, which only keeps whole blocks.

With vLLM's default on a CPU, 128, each turn would compute most of the previous turn again.
"""


def patch_for_cpu() -> bool:
    """On a CPU, make vLLM fork its engine, run the worker in it, and use faster kernels; return whether it is one."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return False
    platform = type(current_platform)
    original = platform.check_and_update_config.__func__

    def check_and_update_config(cls, vllm_config) -> None:
        original(cls, vllm_config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        vllm_config.parallel_config.distributed_executor_backend = "uni"  # vLLM avoids it because of OpenMP's variables, which are already set here

    platform.check_and_update_config = classmethod(check_and_update_config)
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    _use_fast_sampling()
    _use_fused_rms_norm()
    return True


def _use_fast_sampling() -> None:
    """Replace vLLM's sampling, and skip the rank of the sampled token: both take an eighth of a decode step."""
    import torch
    from sampling import sample
    from vllm.v1.outputs import LogprobsTensors
    from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler, apply_top_k_top_p
    from vllm.v1.sample.sampler import Sampler

    original = Sampler.gather_logprobs

    def forward_cpu(self, logits, generators, k, p):
        return sample(apply_top_k_top_p(logits, k, p), generators)

    def gather_logprobs(logprobs, num_logprobs, token_ids):
        if num_logprobs:
            return original(logprobs, num_logprobs, token_ids)
        sampled = token_ids.unsqueeze(-1)
        return LogprobsTensors(sampled.to(torch.int32), logprobs.gather(-1, sampled), torch.zeros_like(token_ids))

    TopKTopPSampler.forward_cpu = forward_cpu
    Sampler.gather_logprobs = staticmethod(gather_logprobs)


def _use_fused_rms_norm() -> None:
    """Make RMSNorm use vLLM's fused kernel, which vLLM itself uses on GPUs only.

    The kernel runs about 60 times in a decode step, and takes a seventh of the time of the separate operations.
    """
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
    """Run the server with the flags of the command line; on a CPU, without compilation and without GPU features.

    Chunked prefill is off on a CPU: for a seeded request with a chunked prompt, vLLM rewinds the random generator,
    which a CPU generator does not support, and the engine would end.
    """
    if patch_for_cpu():
        sys.argv += ["--enforce-eager", "--no-enable-chunked-prefill", "--block-size", str(BLOCK_TOKENS)]
        sys.argv += ["--tensor-parallel-size", "1", "--no-enable-sleep-mode", "--dtype", os.environ["CPU_DTYPE"]]
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    serve()


if __name__ == "__main__":
    main()
