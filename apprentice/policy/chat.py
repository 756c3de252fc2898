"""Conversations as tokens: the pieces of the model's chat template, appended turn by turn."""

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from apprentice.errors import ApprenticeError
from apprentice.policy.sealing import SealedTokenizer
from apprentice.policy.template import ANSWER, END_OF_THOUGHT, OTHER_TEMPLATE, THINK, ChatTemplate, find_pieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE_CONVERSATION = ("Who leads the team in Berlin?\nSearch first.", "I search: Berlin", "(1) Ada leads it.\n(2) Bo left.", "It is Ada.", "Are you sure?")
"""Three user messages and two answers, for which the appended pieces are compared with the rendered template."""


class ChatFormat:
    """The chat format of one model.

    Only the template itself writes control tokens. Text given to these methods never does: a passage that spells the
    end-of-turn token is encoded as ordinary characters. A system message that the template adds by default is left out.

    Args:
        checkpoint: folder with a tokenizer and its chat template.

    Raises:
        ApprenticeError: the tokenizer cannot be read or has no chat template; or the template fails, cannot be split at
            the messages' texts, or renders a conversation to other tokens than the appended pieces.
    """

    def __init__(self, checkpoint: Path):
        self._checkpoint = checkpoint
        self._tokenizer = _read_tokenizer(checkpoint)
        self._template = ChatTemplate(self._tokenizer, checkpoint)
        try:
            self._sealed = SealedTokenizer(self._tokenizer, self._template.own_text)
        except ApprenticeError as error:
            raise ApprenticeError(error.what, where=checkpoint, todo=error.todo) from None
        self._pieces = find_pieces(self._template, self._sealed)
        thought = self._sealed.unseal(self._pieces.thought_opening)
        self._thought = thought if THINK in thought and END_OF_THOUGHT not in thought else ""
        self._closing = self._after(self._pieces.answered + self._pieces.lead + ANSWER, self._pieces.closing)
        special = {token.id for token in self._sealed.control.values() if token.special and token.text not in (THINK, END_OF_THOUGHT)}
        self._hidden = special | {self.end_token_id}
        self._compare_with_template()

    @property
    def end_token_id(self) -> int:
        """The token that ends the assistant's turn."""
        return self._pieces.end.id

    def prompt(self, user_text: str) -> list[int]:
        """Return the tokens of the first user message and of the opening of the assistant's turn."""
        return self._message(self._pieces.first_user, user_text, self._pieces.assistant)

    def reply(self, text: str, ended: bool) -> list[int]:
        """Return the tokens after an action: the end of its turn, a user message, and the opening of the next turn.

        Args:
            text: the user message.
            ended: whether the action's last token is already the end-of-turn token.
        """
        tokens = self._next_message(text, self._pieces.assistant)
        return tokens[1:] if ended else self._closing + tokens

    def action(self, text: str) -> list[int]:
        """Return the tokens of an answer that is not sampled; a thought that the template opens is closed first."""
        closed = self._sealed.seal(END_OF_THOUGHT)
        if text.startswith(THINK) and END_OF_THOUGHT in text:
            thought, _, rest = text.removeprefix(THINK).partition(END_OF_THOUGHT)
            text = ("" if self._thought else self._sealed.seal(THINK)) + thought + closed + rest
        elif self._thought:
            text = f"{closed}\n\n{text}"
        return self._after(self._pieces.assistant, self._pieces.lead + text)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of plain text; a control token spelled in it is encoded as characters."""
        return self._sealed.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of an action without special tokens, after the thought that the template opens, if any."""
        shown = [token for token in token_ids if token not in self._hidden]
        return self._thought + self._tokenizer.decode(shown, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _message(self, before: str, text: str, after: str) -> list[int]:
        return self._sealed.encode(before + (text.strip() if self._pieces.trims else text) + after)

    def _next_message(self, text: str, after: str) -> list[int]:
        """Return the tokens from the end of the assistant's turn to the end of the next user message and `after`."""
        return self._message(self._sealed.seal(self._pieces.end.text) + self._pieces.next_user, text, after)

    def _after(self, before: str, text: str) -> list[int]:
        """Return the tokens that `text` adds to those of `before`; if a token spans both, those of `text` alone."""
        head, whole = self._sealed.encode(before), self._sealed.encode(before + text)
        return whole[len(head) :] if whole[: len(head)] == head else self._sealed.encode(text)

    def _compare_with_template(self) -> None:
        """Raise an error if the template renders three turns to other tokens than the appended pieces."""
        pieces, (first, search, found, answer, last) = self._pieces, SAMPLE_CONVERSATION
        appended = self._message(pieces.first_user, first, pieces.answered) + self._after(pieces.answered, pieces.lead + search)
        appended += self._closing + self._next_message(found, pieces.answered) + self._after(pieces.answered, pieces.lead + answer)
        appended += self.reply(last, ended=False)
        opening, kept = self._sealed.unseal(pieces.opening), self._sealed.unseal(pieces.first_user)
        rendered = self._template.render(*SAMPLE_CONVERSATION)
        whole = self._tokenizer.encode(kept + rendered.removeprefix(opening), add_special_tokens=False)
        for place, (ours, theirs) in enumerate(zip_longest(appended, whole)):
            if ours != theirs:
                raise ApprenticeError(
                    f"the chat template cannot be continued turn by turn: token {place} of three turns is {self._name(theirs)} "
                    f"in the rendered conversation and {self._name(ours)} where each turn is appended",
                    where=self._checkpoint,
                    todo=OTHER_TEMPLATE,
                )

    def _name(self, token_id: int | None) -> str:
        return "nothing" if token_id is None else f"{self._tokenizer.convert_ids_to_tokens(token_id)!r} ({token_id})"


def _read_tokenizer(checkpoint: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # the tokenizers library raises a bare Exception for a damaged tokenizer.json
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ApprenticeError(f"the tokenizer cannot be read: {reason}", where=checkpoint, todo="fetch the model again, or choose another") from None
    if not tokenizer.chat_template:
        raise ApprenticeError("the model has no chat template", where=checkpoint, todo="choose an instruction-tuned model, or add chat_template.jinja")
    return tokenizer
