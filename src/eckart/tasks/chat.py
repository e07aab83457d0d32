"""A model's chat template: demonstrations as turns, and what stands around a query."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from eckart.errors import TaskError

if TYPE_CHECKING:
    from eckart.weights.models import Tokenizer

Mode = Literal["multiturn", "single"]

Shown: TypeAlias = str | tuple[str, str]
"""A demonstration as prompts show it: a text, or what a user says and what is answered."""

MARK = "\ufffc"
"""Stands for a text that is not known yet; no row holds it."""

TODAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}{{ '' }}"
"""For templates that say the date: prompts, and so results, would be others tomorrow."""


@dataclass(frozen=True)
class Frame:
    """All of a prompt but its query: the same for every row that shows the same demonstrations.

    Arguments:
        before, after: stand around the query.
        join: between the context and a label; a part of the continuation.
        chat: whether a chat template made it: white space around the query goes, and the tokenizer
            puts nothing in front.
    """

    before: str
    after: str = ""
    join: str = ""
    chat: bool = False

    def around(self, query: str) -> str:
        """Return the context of a query."""
        return self.before + (query.strip() if self.chat else query) + self.after


@dataclass(frozen=True)
class Chat:
    """How prompts become a conversation.

    Arguments:
        mode: `multiturn`, each demonstration a turn of the user's and one of the assistant's; or
            `single`, all of them in the one turn of the user's.
        template: the model's own, in Jinja2; None until the tokenizer is known.
        tokens: the special tokens that it names.
    """

    mode: Mode
    template: str | None = None
    tokens: Mapping[str, str] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        """Say how prompts are made."""
        how = "turns" if self.mode == "multiturn" else "a part of the first turn"
        return f"prompts are in the model's own chat template, demonstrations as {how}"

    def of(self, tokenizer: Tokenizer) -> Chat:
        """Return the same in the template of a model; a TaskError where it has none."""
        try:
            template = tokenizer.get_chat_template()
        except ValueError:
            raise TaskError(
                f"'{tokenizer.name_or_path}' has no chat template, or several and no default one;"
                " leave out --chat, or take the model that was tuned on conversations"
            ) from None
        known = tokenizer.special_tokens_map.items()
        tokens = {name: str(t) for name, t in known if name in template and isinstance(t, str)}
        return replace(self, template=template, tokens=tokens)

    def frame(self, lead: str, turns: Sequence[tuple[str, str]]) -> Frame:
        """Return what the template puts around a query.

        Arguments:
            lead: what the first turn begins with.
            turns: what the user said before, and what was answered.

        Raises:
            TaskError: the template is not known yet, or does not take such turns.
        """
        said = [text for turn in (*turns, (MARK, MARK)) for text in turn]
        said[0] = lead + said[0]
        asked = self._rendered(said[:-1])
        before, query, after = asked.rpartition(MARK)
        if not query:
            raise self._refusal("it does not show what the user says as it was said")
        answered = self._rendered(said)
        join, answer, _ = answered.removeprefix(asked).partition(MARK)
        if not (answered.startswith(asked) and answer):  # an answer is shown otherwise
            join = ""
        fixed = join.rstrip()  # white space before a word belongs to what is scored
        return Frame(before, after + fixed, join[len(fixed) :], chat=True)

    def without_bos(self, text: str) -> str:
        """Return a prompt for a program that puts the BOS in front itself."""
        return text.removeprefix(self.tokens.get("bos_token", ""))

    def _rendered(self, said: Iterable[str]) -> str:
        """Return a conversation that the user began, up to where the assistant is to answer."""
        if self.template is None:
            raise TaskError(
                "a chat's prompts are made with the model's chat template, and no model is known"
                " yet; make them by task.for_tokenizer(tokenizer)"
            )
        from transformers.utils.chat_template_utils import render_jinja_template

        roles = ("user", "assistant")
        turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(said)]
        dated = TODAY if "strftime_now" in self.template else ""
        asks = len(turns) % 2 == 1
        given: dict[str, Any] = {"add_generation_prompt": asks, **self.tokens}
        made: Any  # the texts, and where the assistant's stand; its own types say less
        try:
            made = render_jinja_template([turns], chat_template=dated + self.template, **given)
        except Exception as error:  # it is somebody else's program
            raise self._refusal(" ".join(str(error).split())[:300]) from None
        return str(made[0][0])

    def _refusal(self, why: str) -> TaskError:
        other = "single" if self.mode == "multiturn" else "multiturn"
        return TaskError(
            f"the model's chat template takes no such conversation ({why}); try --chat {other}, or"
            " leave out --chat"
        )
