"""Runs a language model over a micro-batch and selects the positions that predict action tokens.

With packed attention, a micro-batch is one row of trees. With Transformers' own attention, each sequence is a row, and
shorter sequences are padded at their end, which no token of a causal model attends to.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from apprentice.learning import attention
from apprentice.learning.packing import PackedBatch


def takes_rows(model: nn.Module) -> bool:
    """Whether the model runs with Transformers' own attention, which takes each sequence as a row and no trees."""
    return model.config._attn_implementation != attention.NAME


def trunk_features(trunk: nn.Module, batch: PackedBatch) -> Tensor:
    """The trunk's last hidden states [A, hidden] at the positions that predict an action token."""
    return _select(trunk, batch, trunk(**_inputs(trunk, batch)).last_hidden_state)


def logits_and_features(language_model: nn.Module, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """Logits [A, vocabulary] and last hidden states [A, hidden] at the positions that predict an action token.

    The model's own forward pass applies scaling and soft-capping to the logits. A hook before its head selects the
    hidden states.
    """
    selected: list[Tensor] = []

    def select_positions(_head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        selected.append(_select(language_model, batch, inputs[0]))
        return (selected[0][None],)

    hook = language_model.get_output_embeddings().register_forward_pre_hook(select_positions)
    try:
        output = language_model(**_inputs(language_model, batch))
    finally:
        hook.remove()
    return output.logits[0], selected[0]


def _inputs(model: nn.Module, batch: PackedBatch) -> dict:
    if takes_rows(model):
        if any(tree is not None for tree in batch.branches):
            raise ValueError("the model takes each sequence as a row and was given a tree: pack with `rows=True`")
        return {"input_ids": pad_sequence(batch.token_ids[0].split(batch.lengths), batch_first=True), "use_cache": False}
    groups = None if batch.token_ids.is_cuda else attention.group_branches(batch.lengths, batch.branches)
    packed = {"lengths": batch.lengths, "branches": batch.branches, "groups": groups}
    return {"input_ids": batch.token_ids, "position_ids": batch.position_ids, "use_cache": False, **packed}


def _select(model: nn.Module, batch: PackedBatch, hidden: Tensor) -> Tensor:
    """Selects the positions that predict an action token: [rows, tokens, hidden] -> [A, hidden]."""
    positions = batch.predictors
    if takes_rows(model):
        starts = range(0, hidden.shape[0] * hidden.shape[1], hidden.shape[1])
        ranges = [torch.arange(start, start + length) for start, length in zip(starts, batch.lengths, strict=True)]
        positions = torch.cat(ranges).to(positions.device)[positions]
    return hidden.flatten(0, 1).index_select(0, positions)
