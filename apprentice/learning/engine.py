"""The DeepSpeed adapter, the only module that imports DeepSpeed.

Weights and activations are bf16. DeepSpeed keeps fp32 master weights and accumulates the gradients of all micro-batches
in fp32. An optimizer step may have any number of micro-batches: the caller ends it (`managed_gradient_accumulation` is
off) and divides its losses by the token count of the whole step, so DeepSpeed does not scale them.
"""

import contextlib
import logging
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from apprentice.config.schema import TrainConfig
from apprentice.errors import ApprenticeError
from apprentice.processes.memory import allocated, return_surplus, reuse_memory
from apprentice.processes.output import quiet_libraries

BETAS = (0.9, 0.95)
STATE = "state"


class Engine:
    """A model with its AdamW optimizer.

    Args:
        model: fp32 or bf16; its parameters are cast to `dtype`, its buffers keep the type they were loaded with.
        learning_rate: the peak learning rate; `step` takes the current one.
        max_gradient_norm: gradients are clipped to this 2-norm.
        zero_stage: what is sharded over the ranks. Stage 0 runs as 1, because DeepSpeed's stage 0 accumulates bf16
            gradients in bf16, and on one rank stage 1 shards nothing either.
        offload: keeps the optimizer's state and runs its step on the CPU.
        dtype: type of weights and activations.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        learning_rate: float,
        max_gradient_norm: float,
        zero_stage: int = 1,
        offload: bool = False,
        dtype: torch.dtype = torch.bfloat16,
    ):
        reuse_memory()
        self._needed = 0
        deepspeed = _deepspeed()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=learning_rate, betas=BETAS, weight_decay=0.0, fused=True)
        config = _config(max(1, zero_stage), offload, max_gradient_norm, dtype)
        with _quiet(), _local_rank():
            self._engine, *_ = deepspeed.initialize(model=_cast(model, dtype), optimizer=optimizer, config=config, dist_init_required=False)
        self._distributed = deepspeed.comm
        self._all_trained = len(trained) == len(list(model.parameters()))

    @property
    def device(self) -> torch.device:
        return self._engine.device

    @property
    def rank(self) -> int:
        return self._distributed.get_rank()

    @property
    def ranks(self) -> int:
        return self._distributed.get_world_size()

    @property
    def module(self) -> nn.Module:
        """The wrapped model."""
        return self._engine.module

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model's forward pass."""
        with _local_rank():
            return self._engine(*args, **kwargs)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sums a tensor over the ranks; every rank must call it."""
        if self.ranks > 1:
            tensor = tensor.to(self.device).clone()
            self._distributed.all_reduce(tensor)
        return tensor.cpu()

    def accumulate(self, loss: Tensor) -> float:
        """Accumulates the gradient of a part of the loss. If a part is not finite, `step` skips the optimizer step."""
        value = float(loss.detach())
        self._needed = max(self._needed, allocated())
        with _local_rank():
            self._engine.backward(loss * (self.ranks if math.isfinite(value) else math.nan))
        return_surplus(self._needed)
        return value

    def step(self, learning_rate: float) -> tuple[float, bool]:
        """Takes the optimizer step.

        Returns:
            The 2-norm of the gradients before clipping, and whether the weights changed (False if the loss or the norm
            was not finite).
        """
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        with _local_rank():
            self._engine.step()
        norm = float(self._engine.get_global_grad_norm())
        return norm, bool(self._engine.was_step_applied())

    def empty_cache(self) -> None:
        """Returns cached GPU memory to other processes."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def gathered_weights(self) -> contextlib.AbstractContextManager:
        """A context in which this rank holds every weight of the module, also under ZeRO 3."""
        return _deepspeed().zero.GatheredParameters(list(self.module.parameters()))

    def copy_weights(self, target: nn.Module, source: nn.Module) -> None:
        """Copies weights into a part of the model and into its fp32 master weights, on every rank."""
        with _deepspeed().zero.GatheredParameters(list(target.parameters()), modifier_rank=0), torch.no_grad():
            for weight, other in zip(target.parameters(), source.parameters(), strict=True):
                weight.copy_(other)
        self._engine.optimizer.refresh_fp32_params()

    def save(self, folder: Path) -> None:
        """Writes the trained weights, their fp32 master weights and the optimizer state; `load` restores them exactly.

        Raises:
            OSError: the disk is full.
        """
        self._engine.save_checkpoint(str(folder), tag=STATE, save_latest=False, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote.

        Raises:
            ApprenticeError: the folder holds no state.
        """
        with _quiet():
            found, _ = self._engine.load_checkpoint(str(folder), tag=STATE, load_module_strict=self._all_trained)
        if found is None:
            raise ApprenticeError("the folder holds no trainer state", where=folder, todo="delete it to start from the beginning")


def training_engine(model: nn.Module, config: TrainConfig, *, learning_rate: float, dtype: torch.dtype) -> Engine:
    """Creates an engine with the settings of the `train` section."""
    return Engine(
        model,
        learning_rate=learning_rate,
        max_gradient_norm=config.max_gradient_norm,
        zero_stage=config.zero_stage,
        offload=config.offload_optimizer,
        dtype=dtype,
    )


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Casts the parameters but not the buffers, because bf16 rotary frequencies would misplace later tokens."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _deepspeed() -> Any:
    """Imports DeepSpeed without its log output, and creates a process group of one rank if there is none yet."""
    quiet_libraries()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed

    # Otherwise DeepSpeed compiles a kernel for `inference_all_reduce`, which training never calls.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.utils.logger.setLevel(logging.ERROR)
    if not deepspeed.comm.is_initialized():
        if "RANK" not in os.environ and not torch.distributed.is_initialized():
            torch.distributed.init_process_group(_backend(), store=torch.distributed.HashStore(), rank=0, world_size=1)
        with _quiet():
            deepspeed.init_distributed(dist_backend=_backend(), auto_mpi_discovery=False, verbose=False)
    return deepspeed


def _config(zero_stage: int, offload: bool, max_gradient_norm: float, dtype: torch.dtype) -> dict[str, Any]:
    offloaded = {"offload_optimizer": {"device": "cpu", "pin_memory": torch.cuda.is_available()}} if offload else {}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": max_gradient_norm,
        "zero_optimization": {"stage": zero_stage, "overlap_comm": False, **offloaded},
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        # Without `immediate_grad_update`, ZeRO 1 adds each micro-batch's gradient again with every later micro-batch.
        "bf16": {"enabled": dtype == torch.bfloat16, "immediate_grad_update": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": None,
    }


def _backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"


@contextlib.contextmanager
def _local_rank():
    """Sets LOCAL_RANK for DeepSpeed and restores it, since child processes would take themselves for launched ranks."""
    alone = "LOCAL_RANK" not in os.environ
    if alone:
        os.environ["LOCAL_RANK"] = "0"
    try:
        yield
    finally:
        if alone:
            del os.environ["LOCAL_RANK"]


@contextlib.contextmanager
def _quiet():
    """Discards what DeepSpeed prints to the standard output."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield
