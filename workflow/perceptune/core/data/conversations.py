"""Parse other trainers' formats: messages, image placeholders, and ranked answers to one question.

An example is one user turn with its images first. Rows with more than that (system prompts, several
turns, images inside the text, videos) are rejected with a reason, never truncated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from perceptune.core.data.row_checks import (
    KEYS,
    TASKS,
    RowError,
    is_finite,
    shown,
    split_at_marks,
    text_without_images,
)

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
PICTURES = ("image", "images")
SCORES = ("score_chosen", "score_rejected")
"""Optional columns with the rewards of a pair."""
ELSEWHERE = ("videos", "video", "audios", "audio", "tools", "system", "history")
"""Columns that an example cannot represent; rows where one is not empty are rejected."""


@dataclass(frozen=True)
class Turn:
    """One message: pieces of text, None for each image placeholder, and the images it contains."""

    role: str
    pieces: Sequence[str | None]
    pictures: Sequence[Any] = ()

    def text(self, key: str) -> str:
        """The whole text of a turn. Raises `RowError` if it contains an image."""
        if None in self.pieces:
            raise RowError(f"`{key}`: an image in an answer, expected text")
        return "".join(piece for piece in self.pieces if piece is not None)


def turn_of(role: str, content: Any, key: str) -> Turn:
    """Parse a message's content: text with placeholders, or a list of parts. Raises `RowError`."""
    if isinstance(content, str):
        return Turn(role, split_at_marks(content))
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


def turns_of(messages: Any, key: str) -> list[Turn]:
    """Parse messages with `role` and `content`, or `from` and `value`.

    Raises `RowError`, also for system messages that are not empty.
    """
    if isinstance(messages, Mapping):
        messages = [messages]
    if not isinstance(messages, list) or not messages:
        raise RowError(f"`{key}` is {shown(messages)}, expected a list of messages")
    turns = []
    for message in messages:
        entry = message if isinstance(message, Mapping) else {}
        role = ROLES.get(str(entry.get("role", entry.get("from"))))
        if role is None:
            raise RowError(f"`{key}`: message {shown(message)}, expected role {' or '.join(map(repr, ROLES))}")
        turn = turn_of(role, entry.get("content", entry.get("value")), key)
        if role != "system":
            turns.append(turn)
        elif turn.text(key).strip():
            raise RowError(
                f"`{key}`: system message {shown(turn.text(key))}, expected none: system prompts are not supported"
            )
    return turns


def question_turn(messages: Any, key: str) -> Turn:
    """The single turn of a prompt: text, or messages with one user turn. Raises `RowError`."""
    if isinstance(messages, str):
        return turn_of("user", messages, key)
    turns = turns_of(messages, key)
    if [turn.role for turn in turns] != ["user"]:
        raise RowError(f"`{key}`: turns {_roles(turns)}, expected one user turn")
    return turns[0]


def exchange(messages: Any, key: str) -> tuple[Turn, str]:
    """Question and answer of a conversation with two turns. Raises `RowError`."""
    turns = turns_of(messages, key)
    if [turn.role for turn in turns] != ["user", "assistant"]:
        raise RowError(f"`{key}`: turns {_roles(turns)}, expected one user turn and one assistant turn")
    return turns[0], turns[1].text(key)


def answer_text(answer: Any, key: str) -> str:
    """The text of an answer: text, a message, or a list of one message. Raises `RowError`."""
    if isinstance(answer, str):
        return answer
    turns = turns_of(answer, key)
    if [turn.role for turn in turns] != ["assistant"]:
        raise RowError(f"`{key}`: turns {_roles(turns)}, expected one assistant turn")
    return turns[0].text(key)


def _roles(turns: Sequence[Turn]) -> str:
    return ", ".join(turn.role for turn in turns) or "(none)"


def row_of(
    record: Mapping[str, Any], used: Sequence[str], turn: Turn, answers: Sequence[Mapping[str, Any]] = ()
) -> Any:
    """A row with question, images, `answers_given` and the record's columns not in `used`.

    `used` are the columns from which question and answers were parsed. A column that has the name
    of a perceptune column but different content is kept as `given_<name>`. Empty columns are
    dropped, except the text of an empty page. Raises `RowError`.
    """
    for key in ELSEWHERE:
        if record.get(key) and key not in used:
            raise RowError(f"`{key}` is {shown(record[key])}, expected none: this column is not supported")
    pictures = _pictures(record, turn)
    row: dict[str, Any] = {"images": pictures, "question": question_text(turn, len(pictures))}
    for key, value in record.items():
        blank = value == "" and not (key == "answer" and record.get("task") == "ocr")
        if key in used or key in PICTURES or key in ELSEWHERE or value is None or blank:
            continue
        row[key if key not in KEYS or _fits(key, value) else f"given_{key}"] = value
    if answers:
        row["answers_given"] = list(answers)
    return row


def question_text(turn: Turn, pictures: int) -> str:
    """The text of a turn whose images all come before or all after the text. Raises `RowError`."""
    return text_without_images(turn.pieces, pictures)


def _pictures(record: Mapping[str, Any], turn: Turn) -> list[Any]:
    """The images inside the turn, or else those of the record. Raises `RowError`."""
    embedded = pictures_of(list(turn.pictures))
    key = next((key for key in reversed(PICTURES) if record.get(key) is not None), None)
    if key is None and not embedded:
        raise RowError("no `images`, expected at least one")
    column = [] if key is None else pictures_of(record[key])
    if embedded and column:
        check_alike({"the message": embedded, f"`{key}`": column})
    return embedded or column


def pictures_of(given: Any) -> list[Any]:
    """The images of a column that contains one image or a list of them."""
    return [_picture(one) for one in (given if isinstance(given, list) else [given])]


def check_alike(named: Mapping[str, Sequence[Any]]) -> None:
    """Raise `RowError` if two places of a record contain different images; keys name the places."""
    (first, pictures), *others = named.items()
    for place, found in others:
        if len(pictures) != len(found) or any(map(_differ, pictures, found)):
            message = f"{first} has the images {shown(pictures)}, {place} has {shown(found)}"
            raise RowError(f"{message}, expected the same images, or images in one place only")


def _differ(one: Any, other: Any) -> bool:
    """Whether two images are known to differ: by content, or by file name if one has no content.

    Only the last part of the path is compared, since a path stored with content often lacks its
    folders. A path and nameless content cannot be compared.
    """
    (data, path), (others, name) = _content(one), _content(other)
    if data is None and others is None:
        return path != name
    if data is not None and others is not None:
        return data != others
    return path is not None and name is not None and PurePath(path).name != PurePath(name).name


def _content(picture: Any) -> tuple[bytes | None, str | None]:
    """The bytes and the path of an image; None for what it lacks."""
    data, path = (picture.get("bytes"), picture.get("path")) if isinstance(picture, Mapping) else (None, picture)
    return data if isinstance(data, bytes) else None, path if isinstance(path, str) else None


def _picture(image: Any) -> Any:
    """The form that `checked_row` takes: a path, or a struct of bytes and path."""
    if isinstance(image, bytes):
        return {"bytes": image, "path": None}
    return image["image"] if isinstance(image, Mapping) and "image" in image else image


def _fits(key: str, value: Any) -> bool:
    """Whether another trainer's column has the type of perceptune's column of the same name."""
    if key == "question":
        return False
    if key == "task":
        return isinstance(value, str) and value in TASKS
    if key == "box":
        return isinstance(value, list) and len(value) == 4
    kinds = (str,) if key == "split" else (str, int) if key == "id" else (str, int, float)
    return isinstance(value, kinds) and not isinstance(value, bool)


def true_answer(value: Any, key: str) -> str | int | float:
    """The ground truth in column `key`; empty text means that there is none. Raises `RowError`."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise RowError(f"`{key}` is {shown(value)}, expected text or a number")
    return value


def pair(record: Mapping[str, Any], chosen: str, rejected: str) -> list[dict[str, Any]]:
    """`answers_given` of a pair: rewards 1 and 0, or the scores of the record. Raises `RowError`."""
    if chosen == rejected:
        raise RowError("`chosen` and `rejected` are identical, expected different answers")
    scores = [record.get(key) for key in SCORES]
    rewards = [1.0, 0.0]
    if any(score is not None for score in scores):
        if not all(map(is_finite, scores)):
            found = f"`score_chosen` is {shown(scores[0])} and `score_rejected` {shown(scores[1])}"
            raise RowError(f"{found}, expected two finite numbers or none")
        rewards = [float(score) for score in scores]  # type: ignore[arg-type]
        if rewards[0] < rewards[1]:
            raise RowError(f"`score_chosen` {rewards[0]:g} is below `score_rejected` {rewards[1]:g}")
    return [{"text": text, "reward": reward} for text, reward in zip((chosen, rejected), rewards, strict=True)]
