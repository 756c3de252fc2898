"""A model's chat template, and the pieces that it writes around the texts of a conversation."""

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
"""Stand-ins for message texts: where they turn up in the rendered template, its pieces begin and end."""
DAY, OTHER_DAY = date(2001, 1, 1), date(2002, 2, 2)
"""What a template that asks for the date is told: what it writes must not change from day to day."""
THINK, END_OF_THOUGHT = "<think>", "</think>"
OTHER_TEMPLATE = "choose another model, or mend its chat_template.jinja"


class ChatTemplate:
    """Renders conversations as text.

    Args:
        tokenizer: has a chat template.
        checkpoint: the tokenizer's folder, which errors name.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", checkpoint: Path):
        self._tokenizer, self.checkpoint = tokenizer, checkpoint

    def render(self, *contents: str, generate: bool = True, day: date = DAY) -> str:
        """The messages, which begin with the user's and alternate with the assistant's, as the template writes them.

        Args:
            contents: the texts of the messages.
            generate: whether to open the assistant's next turn.
            day: the date that the template is told.

        Raises:
            ApprenticeError: the template fails.
        """
        from jinja2.exceptions import TemplateError

        talk = [{"role": ("user", "assistant")[index % 2], "content": content} for index, content in enumerate(contents)]
        try:
            return self._tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=generate, strftime_now=day.strftime)
        # A template is a program of the model's author: besides Jinja's errors it raises what Python's operations on its values do.
        except (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ApprenticeError(f"the chat template fails: {type(error).__name__}: {reason}", where=self.checkpoint, todo=OTHER_TEMPLATE) from None

    def split(self, rendered: str, text: str) -> tuple[str, str]:
        """What the template writes before and after a message's text.

        Raises:
            ApprenticeError: the text is not there.
        """
        before, found, after = rendered.partition(text)
        if not found:
            raise ApprenticeError("the chat template does not show every message's text", where=self.checkpoint, todo=OTHER_TEMPLATE)
        return before, after

    @property
    def furniture(self) -> str:
        """What the template writes in a conversation besides the messages' texts."""
        talk = self.render(FIRST, ANSWER, SECOND)
        return talk.replace(FIRST, " ").replace(ANSWER, " ").replace(SECOND, " ")


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a template writes around texts, with sealed control tokens."""

    opening: str
    """The template's own beginning of a conversation, up to the first user text."""
    first_user: str
    """The same without a system message that the template adds by itself."""
    assistant: str
    """From a user text to the place where the assistant's turn is to be sampled."""
    answered: str
    """The same in an answered turn: without the beginning of a thought that only the newest turn has."""
    lead: str
    """What stands between `answered` and an answer, such as a space."""
    closing: str
    """From an answer to the token that ends the turn."""
    end: ControlToken
    next_user: str
    """From the end of the assistant's turn to the next user text."""
    trims: bool
    """The template strips the white space around a message."""

    @property
    def opened(self) -> str:
        """What the newest turn begins with and an answered one does not."""
        return self.assistant.removeprefix(self.answered)


def cut(template: ChatTemplate, sealed: SealedTokenizer) -> Pieces:
    """Finds the template's pieces between the stand-ins of a rendered conversation.

    Raises:
        ApprenticeError: the template cannot be cut, or writes the date into every conversation.
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
    """The first control token after an answer, and where it begins and ends."""
    end, start, stop = next(iter(sealed.controls(between)), (None, 0, 0))
    if end is None or between[:start].strip():
        raise ApprenticeError("the chat template ends the assistant's turn with no control token", where=template.checkpoint, todo=OTHER_TEMPLATE)
    return end, start, stop


def _without_default_system(sealed: SealedTokenizer, opening: str, user: str) -> str:
    """What precedes the first user text, without a system message that the template adds by itself.

    Such a message is text between two control tokens before the header of the user's turn, or text that follows this header.
    """
    if not opening.endswith(user):
        return user if user and opening.startswith(user) else opening
    begin = opening.removesuffix(user)
    for (_, start, stop), (_, following, _) in pairwise(sealed.controls(begin)):
        if begin[stop:following].strip():
            return begin[:start] + user
    return opening
