"""Conversations as tokens: the model's own chat template, cut into pieces that are appended and never rendered again."""

from collections.abc import Sequence
from pathlib import Path

from apprentice.errors import ApprenticeError

SYSTEM, FIRST, ANSWER, SECOND = "ApprenticeSystemText", "ApprenticeFirstText", "ApprenticeAnswerText", "ApprenticeSecondText"
"""Stand-ins for message texts: where they turn up in the rendered template, its pieces begin and end."""


class ChatFormat:
    """The chat format of one model.

    Only what the template itself writes is read as control tokens. Text given to these methods never is: a passage that contains the
    end-of-turn token's spelling is encoded as ordinary characters.

    Args:
        checkpoint: folder with a tokenizer and its chat template.

    Raises:
        ApprenticeError: the tokenizer has no chat template, or one that cannot be cut at the messages' texts.
    """

    def __init__(self, checkpoint: Path):
        from transformers import AutoTokenizer

        self._checkpoint = checkpoint
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ApprenticeError(f"the tokenizer cannot be read: {str(error).splitlines()[0]}", where=checkpoint) from None
        if not self._tokenizer.chat_template:
            raise ApprenticeError("the model has no chat template", where=checkpoint, todo="choose an instruction-tuned model")
        self._cut()

    def prompt(self, user_text: str, system: str | None = None) -> list[int]:
        """The first user message, and what opens the assistant's turn.

        Without `system` there is no system message, not even the one that a template adds by itself.

        Raises:
            ApprenticeError: `system` is given and the model's template takes none.
        """
        if system is None:
            opening = self._first_user
        elif self._system is None:
            raise ApprenticeError("the model's chat template takes no system message", where=self._checkpoint, todo="put it into the first message")
        else:
            before, after = self._system
            opening = before + self.encode(system) + after
        return opening + self.encode(user_text) + self._assistant

    def reply(self, text: str, ended: bool) -> list[int]:
        """What follows an action: the end of the assistant's turn, a user message, and what opens the next turn.

        Args:
            text: the user message.
            ended: the action's last token was the end-of-turn token already.
        """
        between = self._next_user if ended else self._end + self._next_user
        return between + self.encode(text) + self._assistant

    def encode(self, text: str) -> list[int]:
        """The tokens of plain text; control tokens spelled in it stay characters."""
        return self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens; special tokens are dropped."""
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    @property
    def end_token_id(self) -> int:
        """The token that ends the assistant's turn."""
        return self._end[-1]

    def _cut(self) -> None:
        """Finds the template's pieces between the stand-ins of a rendered conversation."""
        talk = [("user", FIRST), ("assistant", ANSWER), ("user", SECOND)]
        whole = self._render(talk, generate=True)
        opening, _ = self._split(whole, FIRST)
        between, _ = self._split(self._split(whole, ANSWER)[1], SECOND)
        self._assistant = self._control(self._split(whole, SECOND)[1])
        closing = self._split(self._render(talk[:2], generate=False), ANSWER)[1]
        user = between.removeprefix(closing)
        self._end, self._next_user = self._turn_end(self._control(between))
        with_system = self._render_with_system(talk)
        before = self._split(with_system, SYSTEM)[0] if with_system else None
        self._first_user = self._control(self._without_default_system(opening, user, before))
        self._system = None
        if with_system:
            after = self._split(self._split(with_system, SYSTEM)[1], FIRST)[0]
            self._system = self._control(before), self._control(after)

    def _without_default_system(self, opening: str, user: str, before_system: str | None) -> str:
        """What precedes the first user message, freed of a system message that the template adds by itself.

        Such a message is there where the opening is neither the user header alone nor that header behind what begins every
        conversation; what begins every conversation is then what stands before the first header, which starts with a special token.
        """
        begin = opening.removesuffix(user)
        if not begin or before_system is None or before_system.startswith(begin) or not opening.endswith(user):
            return opening
        header = next((token for token in self._tokenizer.all_special_tokens if user.startswith(token)), None)
        if header is None or header not in before_system:
            return opening
        return before_system[: before_system.index(header)] + user

    def _turn_end(self, between: list[int]) -> tuple[list[int], list[int]]:
        """The tokens up to the end-of-turn token, and those after it, of what stands between an answer and the next user text."""
        special = set(self._tokenizer.all_special_ids)
        for place, token in enumerate(between):
            if token in special:
                return between[: place + 1], between[place + 1 :]
        raise ApprenticeError("the chat template ends the assistant's turn with no special token", where=self._checkpoint, todo="choose another model")

    def _render(self, messages: list[tuple[str, str]], *, generate: bool) -> str:
        conversation = [{"role": role, "content": content} for role, content in messages]
        return self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=generate)

    def _render_with_system(self, talk: list[tuple[str, str]]) -> str | None:
        from jinja2.exceptions import TemplateError

        try:
            rendered = self._render([("system", SYSTEM), *talk], generate=True)
        except TemplateError:
            return None
        return rendered if SYSTEM in rendered else None

    def _control(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False) if text else []

    def _split(self, text: str, sentinel: str) -> tuple[str, str]:
        before, found, after = text.partition(sentinel)
        if not found:
            raise ApprenticeError("the chat template does not show every message's text", where=self._checkpoint, todo="choose another model")
        return before, after
