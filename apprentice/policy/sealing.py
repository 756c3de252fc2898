"""A tokenizer in which only the chat template can write control tokens; text that spells one is just characters."""

import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apprentice.errors import ApprenticeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MARKUP = re.compile(r"[<>\[\]{}|]")
"""An added token with one of these characters is a control token even if the tokenizer does not flag it as special."""


@dataclass(frozen=True, slots=True)
class ControlToken:
    """A token that structures a conversation, such as `<|im_end|>`."""

    id: int
    text: str
    special: bool
    """Whether the tokenizer flags it as special."""


class SealedTokenizer:
    """A copy of a fast tokenizer whose control tokens have secret spellings.

    The copy encodes whole strings, so a message has exactly the tokens that it has inside the rendered template: the
    spaces that SentencePiece adds, the spaces that an added token strips, and merges across a message's boundary are
    those of the original tokenizer. `seal` writes the secret spellings into the template's output. No other text can
    contain them, because each object chooses them at random.

    Args:
        tokenizer: a tokenizer with a fast backend.
        template_text: the text that the chat template itself writes; an added token in it is a control token.

    Raises:
        ApprenticeError: the tokenizer has no fast backend, or its control tokens cannot be renamed.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", template_text: str):
        if not tokenizer.is_fast:
            raise ApprenticeError("the tokenizer has no fast version", todo="save it with a tokenizer.json, or choose another model")
        nonce = secrets.token_hex(8)
        definition = json.loads(tokenizer.backend_tokenizer.to_str())
        added = definition["added_tokens"]
        self.control = {
            token["id"]: ControlToken(token["id"], token["content"], token["special"])
            for token in added
            if token["special"] or MARKUP.search(token["content"]) or (token["content"].strip() and token["content"] in template_text)
        }
        self._names = {token.text: f"sealed{nonce}n{token.id}x" for token in self.control.values()}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._written = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._sealed = re.compile(f"sealed{nonce}n([0-9]+)x")
        self._copy = self._renamed(definition)

    def seal(self, rendered: str) -> str:
        """Return the template's output with its control tokens in their secret spellings."""
        return self._written.sub(lambda found: self._names[found.group()], rendered)

    def unseal(self, sealed: str) -> str:
        """Return the text with the control tokens' own spellings: the inverse of `seal`."""
        return self._sealed.sub(lambda found: self.control[int(found.group(1))].text, sealed)

    def encode(self, sealed: str) -> list[int]:
        """Return the tokens of a text; only secret spellings become control tokens."""
        return self._copy.encode(sealed, add_special_tokens=False).ids

    def controls(self, sealed: str) -> list[tuple[ControlToken, int, int]]:
        """Return the control tokens of a sealed string, each with its start and end in that string."""
        return [(self.control[int(found.group(1))], *found.span()) for found in self._sealed.finditer(sealed)]

    def _renamed(self, definition: dict):
        from tokenizers import Tokenizer

        for token in definition["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        self._rename_vocabulary(definition["model"], definition["added_tokens"])
        copy = Tokenizer.from_str(json.dumps({**definition, "post_processor": None, "truncation": None, "padding": None}))
        moved = [token for token in definition["added_tokens"] if copy.token_to_id(token["content"]) != token["id"]]
        if moved:
            raise ApprenticeError(f"the tokenizer gives its added token {moved[0]['id']} another id than its file says", todo="choose another model")
        return copy

    def _rename_vocabulary(self, model: dict, added: Sequence[dict]) -> None:
        """Rename control tokens in the model's vocabulary, and drop the merges that produce their old spellings."""
        if isinstance(model["vocab"], list):
            model["vocab"] = [[self._names.get(piece, piece), score] for piece, score in model["vocab"]]
            return
        ours = {self._names.get(piece, piece): number for piece, number in model["vocab"].items()}
        model["vocab"] = ours | {token["content"]: token["id"] for token in added}
        if "merges" in model:
            pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
            model["merges"] = [pair for pair in pairs if not self._names.keys() & {*pair, "".join(pair)}]
