"""Messages, picture marks and answers of other trainers' formats: one question, its pictures before it, and ranked answers.

An example here is one user turn with its pictures first. What says more than that (system prompts, several turns, pictures
inside of the text, videos) is refused with a reason, not cut down to fit.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perceptune.core.importing import KEYS, TASKS, RowError, shown

MARK = "<image>"
"""Where a picture goes, in formats whose messages are text."""
ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
PICTURES = ("image", "images")
SCORES = ("score_chosen", "score_rejected")
"""Columns with the rewards of a pair, where there are any."""
ELSEWHERE = ("videos", "video", "audios", "audio", "tools", "system", "history")
"""What a question has no place for, if it is not empty."""


@dataclass(frozen=True)
class Turn:
    """One message: its text in pieces, None where a picture goes, and the pictures that it brings itself."""

    role: str
    pieces: Sequence[str | None]
    pictures: Sequence[Any] = ()

    def text(self, key: str) -> str:
        """The whole text of a turn without pictures."""
        if None in self.pieces:
            raise RowError(f"`{key}`: a picture in an answer, expected text")
        return "".join(piece for piece in self.pieces if piece is not None)


def turn_of(role: str, content: Any, key: str) -> Turn:
    """A message's content: text with marks, or a list of text and image parts. Raises `RowError`."""
    if isinstance(content, str):
        return Turn(role, list(_marked(content)))
    if not isinstance(content, list):
        raise RowError(f"`{key}`: content {shown(content)}, expected text or a list of parts")
    pieces: list[str | None] = []
    pictures: list[Any] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image":
            pieces.append(None)
            pictures += [part["image"]] if part.get("image") is not None else []
        elif kind == "text" and isinstance(part.get("text"), str):
            pieces.append(part["text"])
        else:
            raise RowError(f"`{key}`: part {shown(part)}, expected `image` or `text`")
    return Turn(role, pieces, pictures)


def _marked(text: str) -> Iterator[str | None]:
    first, *others = text.split(MARK)
    yield first
    for other in others:
        yield None
        yield other


def turns_of(messages: Any, key: str) -> list[Turn]:
    """Messages as `role` and `content`, or as `from` and `value`. Raises `RowError`, for system messages too."""
    if isinstance(messages, Mapping):
        messages = [messages]
    if not isinstance(messages, list) or not messages:
        raise RowError(f"`{key}` is {shown(messages)}, expected a list of messages")
    turns = []
    for message in messages:
        given = message if isinstance(message, Mapping) else {}
        role = ROLES.get(str(given.get("role", given.get("from"))))
        if role is None:
            raise RowError(f"`{key}`: message {shown(message)}, expected role {' or '.join(map(repr, ROLES))}")
        turn = turn_of(role, given.get("content", given.get("value")), key)
        if role != "system":
            turns.append(turn)
        elif turn.text(key).strip():
            raise RowError(f"`{key}`: a system message {shown(turn.text(key))}, expected none: it has no place here")
    return turns


def question_turn(messages: Any, key: str) -> Turn:
    """The only turn of a prompt: text, or messages with one of the user. Raises `RowError`."""
    if isinstance(messages, str):
        return turn_of("user", messages, key)
    turns = turns_of(messages, key)
    if [turn.role for turn in turns] != ["user"]:
        raise RowError(f"`{key}`: turns {_roles(turns)}, expected one of the user")
    return turns[0]


def exchange(messages: Any, key: str) -> tuple[Turn, str]:
    """Question and answer of a conversation of two turns. Raises `RowError`."""
    turns = turns_of(messages, key)
    if [turn.role for turn in turns] != ["user", "assistant"]:
        raise RowError(f"`{key}`: turns {_roles(turns)}, expected one of the user and its answer")
    return turns[0], turns[1].text(key)


def answer_text(answer: Any, key: str) -> str:
    """An answer as text, as a message, or as a list of one message. Raises `RowError`."""
    if isinstance(answer, str):
        return answer
    turns = turns_of(answer, key)
    if [turn.role for turn in turns] != ["assistant"]:
        raise RowError(f"`{key}`: turns {_roles(turns)}, expected one of the assistant")
    return turns[0].text(key)


def _roles(turns: Sequence[Turn]) -> str:
    return ", ".join(turn.role for turn in turns) or "(none)"


def row_of(
    record: Mapping[str, Any], used: Sequence[str], turn: Turn, answers: Sequence[Mapping[str, Any]] = ()
) -> Any:
    """The row of a question with its pictures, its `answers_given`, our own columns where they fit, and all others.

    `used` are the columns that question and answers come from. A column that has one of our names and another kind of
    content is kept as `given_<name>`. Raises `RowError`.
    """
    for key in ELSEWHERE:
        if record.get(key) and key not in used:
            raise RowError(f"`{key}` is {shown(record[key])}, expected none: it has no place here")
    pictures = list(turn.pictures) or _pictures(record)
    row: dict[str, Any] = {"images": pictures, "question": question_text(turn, len(pictures))}
    for key, value in record.items():
        if key in used or key in PICTURES or key in ELSEWHERE or value is None or value == "":
            continue
        row[key if key not in KEYS or _fits(key, value) else f"given_{key}"] = value
    if answers:
        row["answers_given"] = list(answers)
    return row


def question_text(turn: Turn, pictures: int) -> str:
    """The text of a turn with all its pictures before it or behind it. Raises `RowError`."""
    marks = sum(piece is None for piece in turn.pieces)
    if marks not in (0, pictures):
        raise RowError(f"{marks} picture marks for {pictures} images, expected as many, or none")
    written = [piece is not None for piece in turn.pieces if piece is None or piece.strip()]
    if written != sorted(written) and written != sorted(written, reverse=True):
        raise RowError("a picture inside of the text, expected it before: pictures come first here")
    text = "".join(piece for piece in turn.pieces if piece is not None)
    return text.strip() if marks else text


def _pictures(record: Mapping[str, Any]) -> list[Any]:
    given = next((record[key] for key in reversed(PICTURES) if record.get(key) is not None), None)
    if given is None:
        raise RowError("no `images`, expected at least one")
    return [_picture(one) for one in (given if isinstance(given, list) else [given])]


def _picture(image: Any) -> Any:
    """As `core.importing` takes it: a path, or a struct of bytes and path."""
    if isinstance(image, bytes):
        return {"bytes": image, "path": None}
    return image["image"] if isinstance(image, Mapping) and "image" in image else image


def _fits(key: str, value: Any) -> bool:
    """Whether another trainer's column of this name can be meant as ours."""
    if key == "question":
        return False
    if key == "task":
        return isinstance(value, str) and value in TASKS
    if key == "box":
        return isinstance(value, list) and len(value) == 4
    kinds = (str,) if key == "split" else (str, int) if key == "id" else (str, int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and value != ""


def pair(record: Mapping[str, Any], chosen: str, rejected: str) -> list[dict[str, Any]]:
    """`answers_given` of a pair: rewards 1 and 0, or the scores that the record has. Raises `RowError`."""
    if chosen == rejected:
        raise RowError("`chosen` and `rejected` are the same")
    scores = [record.get(key) for key in SCORES]
    rewards = (1.0, 0.0)
    if all(isinstance(s, int | float) and not isinstance(s, bool) and abs(s) <= sys.float_info.max for s in scores):
        rewards = (float(scores[0]), float(scores[1]))  # type: ignore[arg-type]
        if rewards[0] < rewards[1]:
            raise RowError(f"`score_chosen` {rewards[0]:g} is below `score_rejected` {rewards[1]:g}")
    return [{"text": text, "reward": reward} for text, reward in zip((chosen, rejected), rewards, strict=True)]
