"""Run a language model over a micro-batch and keep what predicts an action token, in the layout that the model's attention takes.

With packed attention, a micro-batch is one row of trees. With Transformers' own attention, each sequence is a row and shorter ones are padded at their
end, which no token of a causal model sees.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from apprentice.learning import attention
from apprentice.learning.packing import PackedBatch


def takes_rows(model: nn.Module) -> bool:
    """Whether the model runs with Transformers' own attention, which takes each sequence as a row and knows no trees."""
    return model.config._attn_implementation != attention.NAME


def trunk_features(trunk: nn.Module, batch: PackedBatch) -> Tensor:
    """The trunk's last hidden states [A, hidden] at the tokens that predict an action token."""
    return _predicting(trunk, batch, trunk(**_inputs(trunk, batch)).last_hidden_state)


def logits_and_features(language_model: nn.Module, batch: PackedBatch) -> tuple[Tensor, Tensor]:
    """The model's own logits [A, vocabulary] of the action tokens, and what `trunk_features` gives.

    Whatever the model does to its logits (scaling, soft-capping) is done by its own forward pass. A hook before its head drops the hidden states
    from which no action token is predicted.
    """
    kept: list[Tensor] = []

    def keep_predicting(_head: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        kept.append(_predicting(language_model, batch, inputs[0]))
        return (kept[0][None],)

    hook = language_model.get_output_embeddings().register_forward_pre_hook(keep_predicting)
    try:
        output = language_model(**_inputs(language_model, batch))
    finally:
        hook.remove()
    return output.logits[0], kept[0]


def _inputs(model: nn.Module, batch: PackedBatch) -> dict:
    if takes_rows(model):
        return {"input_ids": pad_sequence(batch.token_ids[0].split(batch.lengths), batch_first=True), "use_cache": False}
    groups = None if batch.token_ids.is_cuda else attention.alike(batch.lengths, batch.sights)
    packed = {"lengths": batch.lengths, "sights": batch.sights, "groups": groups}
    return {"input_ids": batch.token_ids, "position_ids": batch.position_ids, "use_cache": False, **packed}


def _predicting(model: nn.Module, batch: PackedBatch, hidden: Tensor) -> Tensor:
    """[rows, tokens, hidden] -> [A, hidden]."""
    places = batch.predictors
    if takes_rows(model):
        starts = range(0, hidden.shape[0] * hidden.shape[1], hidden.shape[1])
        ranges = [torch.arange(start, start + length) for start, length in zip(starts, batch.lengths, strict=True)]
        places = torch.cat(ranges).to(places.device)[places]
    return hidden.flatten(0, 1).index_select(0, places)
