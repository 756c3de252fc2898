"""A model's chat template, and the pieces of text that it writes around the messages of a conversation."""

from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from apprentice.errors import ApprenticeError
from apprentice.policy.sealing import ControlToken, SealedTokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIRST, ANSWER, SECOND = "ApprenticeFirstText", "ApprenticeAnswerText", "ApprenticeSecondText"
"""Placeholders for message texts: the template's pieces are what it renders between them."""
DAY, OTHER_DAY = date(2001, 1, 1), date(2002, 2, 2)
"""Dates given to a template that asks for one: its output must not depend on the day."""
THINK, END_OF_THOUGHT = "<think>", "</think>"
OTHER_TEMPLATE = "choose another model, or correct its chat_template.jinja"


class ChatTemplate:
    """Renders conversations as text.

    Args:
        tokenizer: a tokenizer that has a chat template.
        checkpoint: the tokenizer's folder, for error messages.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", checkpoint: Path):
        self._tokenizer, self.checkpoint = tokenizer, checkpoint

    def render(self, *contents: str, generate: bool = True, day: date = DAY) -> str:
        """Render a conversation in which user and assistant take turns, beginning with the user.

        Args:
            contents: the texts of the messages.
            generate: whether to open the assistant's next turn.
            day: the date given to the template.

        Raises:
            ApprenticeError: the template fails.
        """
        from jinja2.exceptions import TemplateError

        talk = [{"role": ("user", "assistant")[index % 2], "content": content} for index, content in enumerate(contents)]
        try:
            return self._tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=generate, strftime_now=day.strftime)
        # A template is a program: besides Jinja's errors, it can raise those of the Python operations that it uses.
        except (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ApprenticeError(f"the chat template fails: {type(error).__name__}: {reason}", where=self.checkpoint, todo=OTHER_TEMPLATE) from None

    def split(self, rendered: str, text: str) -> tuple[str, str]:
        """Return what the template writes before and after a message's text.

        Raises:
            ApprenticeError: the text does not occur.
        """
        before, found, after = rendered.partition(text)
        if not found:
            raise ApprenticeError("the chat template does not write every message's text", where=self.checkpoint, todo=OTHER_TEMPLATE)
        return before, after

    @property
    def own_text(self) -> str:
        """Return the text that the template adds to the messages of a conversation."""
        talk = self.render(FIRST, ANSWER, SECOND)
        return talk.replace(FIRST, " ").replace(ANSWER, " ").replace(SECOND, " ")


@dataclass(frozen=True, slots=True)
class Pieces:
    """The parts of a template around the texts of messages, with sealed control tokens."""

    opening: str
    """From the beginning of a conversation to the first user text."""
    first_user: str
    """`opening` without a system message that the template adds by default."""
    assistant: str
    """From a user text to the first token that the assistant samples."""
    answered: str
    """`assistant` in an earlier turn: without the opening of a thought, which only the newest turn has."""
    lead: str
    """Text of the template between `answered` and an answer, such as a space."""
    closing: str
    """From an answer to the control token that ends the turn."""
    end: ControlToken
    next_user: str
    """From the end of the assistant's turn to the next user text."""
    trims: bool
    """Whether the template strips the white space around a message."""

    @property
    def thought_opening(self) -> str:
        """The opening of a thought, with which only the newest turn begins; empty if the template writes none."""
        return self.assistant.removeprefix(self.answered)


def find_pieces(template: ChatTemplate, sealed: SealedTokenizer) -> Pieces:
    """Find a template's pieces between the placeholders of a rendered conversation.

    Raises:
        ApprenticeError: the template cannot be split, or writes the date into every conversation.
    """
    talk = sealed.seal(template.render(FIRST, ANSWER, SECOND))
    opening, rest = template.split(talk, FIRST)
    answered, rest = template.split(rest, ANSWER)
    between, assistant = template.split(rest, SECOND)
    end, start, stop = _end_of_turn(template, sealed, between)
    user = between.removeprefix(sealed.seal(template.split(template.render(FIRST, ANSWER, generate=False), ANSWER)[1]))
    first_user = _without_default_system(sealed, opening, user)
    dated, dated_rest = template.split(sealed.seal(template.render(FIRST, ANSWER, SECOND, day=OTHER_DAY)), FIRST)
    if (_without_default_system(sealed, dated, user), dated_rest) != (first_user, template.split(talk, FIRST)[1]):
        raise ApprenticeError("the chat template writes today's date into every conversation", where=template.checkpoint, todo=OTHER_TEMPLATE)
    lead = answered.removeprefix(assistant) if answered.startswith(assistant) else ""
    if lead.strip() and not sealed.unseal(lead).lstrip().startswith(THINK):
        raise ApprenticeError("the chat template does not open the assistant's turn (add_generation_prompt)", where=template.checkpoint, todo=OTHER_TEMPLATE)
    return Pieces(
        opening=opening,
        first_user=first_user,
        assistant=assistant,
        answered=answered.removesuffix(lead),
        lead=lead,
        closing=between[:start],
        end=end,
        next_user=between[stop:],
        trims=f"\t{FIRST}\t" not in template.render(f"\t{FIRST}\t"),
    )


def _end_of_turn(template: ChatTemplate, sealed: SealedTokenizer, between: str) -> tuple[ControlToken, int, int]:
    """Return the first control token after an answer, with its start and end."""
    end, start, stop = next(iter(sealed.controls(between)), (None, 0, 0))
    if end is None or between[:start].strip():
        raise ApprenticeError("the chat template does not end the assistant's turn with a control token", where=template.checkpoint, todo=OTHER_TEMPLATE)
    return end, start, stop


def _without_default_system(sealed: SealedTokenizer, opening: str, user: str) -> str:
    """Return what precedes the first user text, without a system message that the template adds by default.

    Such a message is text between two control tokens before the header of the user's turn, or text after this header.
    """
    if not opening.endswith(user):
        return user if user and opening.startswith(user) else opening
    begin = opening.removesuffix(user)
    for (_, start, stop), (_, following, _) in pairwise(sealed.controls(begin)):
        if begin[stop:following].strip():
            return begin[:start] + user
    return opening
