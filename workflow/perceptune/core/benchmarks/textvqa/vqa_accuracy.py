"""VQA accuracy: agreement with ten human answers (TextVQA)."""

from __future__ import annotations

import re

import numpy as np

from perceptune.contracts.errors import UserError
from perceptune.core.rewards.reward import ACCURACY_METRICS, Answers, Reward, Scores

PEOPLE = 10
ENOUGH = 3
"""Number of agreeing people that gives an answer full credit."""

NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_->@`<,?!'
FULL_STOP = re.compile(r"\.(?!\d)")
STOPS = 32
"""Maximum number of full stops removed: the official script passes a regex flag as the count."""
CONTRACTED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't
it'd it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll they're
they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's who've why'll
why're why's won't would've wouldn't y'all you'd you'll you're you've couldn't've hadn't've he'd've it'd've mightn't've
'ow's'at she'd've shouldn't've somebody'd've someone'd've something'd've there'd've they'd've we'd've who'd've wouldn't've
y'all'd've y'all'll you'd've
"""
CONTRACTIONS = {
    word[:place] + word[place + 1 :]: word
    for word in CONTRACTED.split()
    for place, sign in enumerate(word)
    if sign == "'"
} | {"somebody'd": "somebodyd"}
"""The official list: maps a word without one of its apostrophes to the word. Entries with capitals
never apply and are left out.
"""


def vqa_accuracy(answers: Answers) -> Scores:
    """Reward and component `accuracy`: agreement with the human answers, see `accuracy_of`.

    The source must have ten `answers`. If it has none, the target replaces all of them; without a
    target, no answer is right. Parsed: the normalised `answer`. Raises `UserError` for any other
    number of answers.
    """
    found = [normalised(text) for text in answers.texts]
    rewards = np.zeros(len(found))
    for i, (target, source) in enumerate(zip(answers.targets, answers.each_source(), strict=True)):
        humans = source.get("answers") or ([target] * PEOPLE if target else [])
        if not humans:
            continue
        if len(humans) != PEOPLE:
            raise UserError(f"reward `vqa_accuracy`: a question has {len(humans)} `answers`, expected {PEOPLE}")
        rewards[i] = accuracy_of(found[i], [normalised(str(one)) for one in humans])
    parsed = [{"answer": answer} if answer else None for answer in found]
    return Scores(rewards, parsed, {"accuracy": rewards}, [None if p else "the answer is empty" for p in parsed])


def accuracy_of(answer: str, humans: list[str]) -> float:
    """Mean over the human answers, each left out once, of min(1, equal other answers / 3).

    If 1, 2, 3 or more of ten people agree, it is 0.3, 0.6, 0.9 or 1.
    """
    agree = humans.count(answer)
    scores = [min(1.0, (agree - (one == answer)) / ENOUGH) for one in humans]
    return sum(scores) / len(scores)


def normalised(text: str) -> str:
    """The text as the TextVQA script compares it: without case, articles and punctuation, with
    numbers up to ten as digits.

    A punctuation mark is removed if it is next to a space anywhere in the text, and otherwise
    replaced by a space; a full stop before a digit stays.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    bare = text = text.replace("\n", " ").replace("\t", " ").strip()
    for mark in PUNCTUATION:
        bare = bare.replace(mark, "" if f"{mark} " in text or f" {mark}" in text else " ")
    words = [NUMBERS.get(word, word) for word in FULL_STOP.sub("", bare, count=STOPS).split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


REWARD = Reward(
    name="vqa_accuracy",
    summary="VQA accuracy: agreement with ten human answers, where three or more make about 1",
    score=vqa_accuracy,
    components=("accuracy",),
    metrics=ACCURACY_METRICS,
)
