"""AMBER's descriptions with known nouns, compared with plain loops over the official annotations,
and without the language resources.
"""

import json
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from perceptune.core.answers.nouns import Language, MissingLanguageError, english

from tests.plugins import BENCHMARKS
from tests.unit.benchmarks.answering import Row, answered, failures, shuffled, values

from .texts import SAID, alike, described, drawn_nouns


def counted(rows: list[Row], texts: list[str], relation: dict[str, list[str]], safe: list[str]) -> dict[str, float]:
    """The official script's counters for descriptions, with a flag for each word of the two lists."""
    vocabulary = set(relation) | {word for words in relation.values() for word in words}
    total: Counter[str] = Counter()
    for row, text in zip(rows, texts, strict=True):
        nouns = [noun for noun in text.split() if noun in vocabulary]
        slots: dict[str, list[tuple[str, int]]] = {}
        for name in ("truth", "hallu"):
            slots[name] = [(near, place) for place, word in enumerate(row[name]) for near in relation[word]]
            slots[name] += [(word, place) for place, word in enumerate(row[name])]
        flags = {name: [0] * len(row[name]) for name in ("truth", "hallu")}
        wrong = []
        for noun in nouns:
            if noun in safe:
                continue
            if noun in [word for word, _ in slots["truth"]]:
                for word, place in slots["truth"]:
                    if word == noun:
                        flags["truth"][place] = 1
                        break
                continue
            matched = False
            for test in (lambda word, noun=noun: word == noun, lambda word, noun=noun: alike(noun, word)):
                for word, place in slots["hallu"]:
                    if test(word):
                        flags["hallu"][place] = 1
                        matched = True
                        break
            for word, place in slots["truth"]:
                if alike(noun, word):
                    flags["truth"][place] = 1
                    break
            else:
                wrong.append(matched)
        total.update(
            nouns=len(nouns), wrong=len(wrong), truth=len(flags["truth"]), covered=sum(flags["truth"]),
            hallu=len(flags["hallu"]), guessed=sum(flags["hallu"]), any=bool(wrong), rows=1, guessing=sum(wrong),
        )  # fmt: skip
    return {
        "chair": total["wrong"] / total["nouns"] if total["nouns"] else 0.0,
        "cover": total["covered"] / total["truth"],
        "hal": total["any"] / total["rows"],
        "cog": total["guessed"] / total["hallu"],
        "cog_of_nouns": total["guessing"] / total["nouns"] if total["nouns"] else 0.0,
    }


def check_described(rows: list[Row], texts: list[str], folder: Path) -> dict[str, float]:
    relation = json.loads((folder / "relation.json").read_text())
    safe = (folder / "safe_words.txt").read_text().split("\n")
    found = values("amber_generative", answered("amber_generative", rows, texts))
    assert found == pytest.approx(counted(rows, texts, relation, safe), abs=1e-12)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_any_descriptions(rows: list[Row], folder: Path, language: Language, seed: int) -> None:
    found = check_described(described(rows), drawn_nouns(described(rows), seed), folder)
    assert all(0.05 < value < 0.95 for value in found.values())


def test_perfect_descriptions(rows: list[Row], folder: Path, language: Language) -> None:
    """All annotated objects and no others: nothing is hallucinated, but related words keep Cover
    below 1.
    """
    found = check_described(described(rows), [" ".join(row["truth"]) for row in described(rows)], folder)
    assert (found["chair"], found["hal"], found["cog"]) == (0.0, 0.0, 0.0)
    assert 0.8 < found["cover"] < 1


def test_descriptions_of_what_is_expected_only(rows: list[Row], folder: Path, language: Language) -> None:
    found = check_described(described(rows), [" ".join(row["hallu"]) for row in described(rows)], folder)
    assert min(found["hal"], found["cog"], found["chair"]) > 0.7


def test_empty_and_missing_descriptions(rows: list[Row], folder: Path, language: Language) -> None:
    found = check_described(described(rows), [""] * 1004, folder)
    assert set(found.values()) == {0.0}
    answers = answered("amber_generative", described(rows), [None] * 1004)
    assert values("amber_generative", answers) == {**found, "hal": 1.0}
    assert failures("amber_generative", answers, "chair") == (1004, 1004)


def test_order_of_descriptions_does_not_matter(rows: list[Row], language: Language) -> None:
    answers = answered("amber_generative", described(rows), drawn_nouns(described(rows), 8))
    assert values("amber_generative", shuffled(answers, 1)) == values("amber_generative", answers)


def test_toy(language: Language) -> None:
    """Named: dog, frisbee, tree, car. In the image: dog, frisbee, grass, person. Expected but
    absent: car.
    """
    row: Row = {
        "id": "1", "question": "Describe this image.", "task": "open", "type": "generative", "image_file": "a.jpg",
        "truth": ["dog", "frisbee", "grass", "person"], "hallu": ["car"],
        "association": {word: [] for word in ("dog", "frisbee", "grass", "person", "car")},
        "vocabulary": ["car", "dog", "frisbee", "grass", "person", "tree"], "safe_words": ["orange"],
    }  # fmt: skip
    (answer,) = answered("amber_generative", [row], ["dog frisbee tree car sky"])
    found = values("amber_generative", [answer])
    assert found == {"chair": 0.5, "cover": 0.5, "hal": 1.0, "cog": 1.0, "cog_of_nouns": 0.25}
    assert answer.parsed == {"nouns": ["dog", "frisbee", "tree", "car"]}
    good = answered("amber_generative", [{**row, "id": "2"}], ["dog frisbee"])
    missing = answered("amber_generative", [{**row, "id": "3"}], [None])
    assert values("amber_generative", [answer, *good])["hal"] == 0.5
    assert values("amber_generative", [answer, *missing])["hal"] == 1.0  # a missing description never helps
    assert values("amber_generative", [*good, *missing])["hal"] == 0.5


def test_amber_score(rows: list[Row], folder: Path, language: Language) -> None:
    draw = Random(6)
    nouns = iter(drawn_nouns(described(rows), 6))
    texts = [next(nouns) if row["task"] == "open" else draw.choice(SAID) for row in rows]
    found = values("amber", answered("amber", rows, texts))
    assert found["amber_score"] == pytest.approx((1 - found["chair"] + found["discriminative_f1"]) / 2)
    apart = values(
        "amber_generative",
        answered(
            "amber_generative", described(rows), [t for t, r in zip(texts, rows, strict=True) if r["task"] == "open"]
        ),
    )
    assert {name: found[name] for name in apart} == apart


# without the language resources


def test_without_resources_only_descriptions_are_not_measured(
    rows: list[Row], capsys: pytest.CaptureFixture[str]
) -> None:
    """Metrics that need the missing resource are null, not 0."""
    draw = Random(1)
    texts = ["A dog." if row["task"] == "open" else draw.choice(SAID) for row in rows]
    answers = answered("amber", rows, texts)
    found = values("amber", answers)
    unmeasured = {name for name, value in found.items() if np.isnan(value)}
    assert unmeasured == {"amber_score", "chair", "cover", "hal", "cog", "cog_of_nouns"}
    assert (
        "AMBER's descriptions are not measured: key `resources` of the reward block is not set"
        in capsys.readouterr().err
    )
    assert failures("amber", answers, "chair") == (1004, 1004)
    needs = BENCHMARKS["amber"].metrics["chair"].needs
    assert "`resources`" in needs and "en_core_web_lg" in needs and "envs/language.txt" in needs
    (first,) = [answer for answer in answers if answer.example_id == "1"]
    assert first.reason is not None and first.reason.startswith("not measured: key `resources`")


@pytest.mark.parametrize("missing", ["tokenizers/punkt_tab", "corpora/wordnet"])
def test_what_is_missing_is_named(tmp_path: Path, missing: str) -> None:
    nltk = pytest.importorskip("nltk", reason="envs/language.txt is not installed")
    before = list(nltk.data.path)
    for place in ("tokenizers/punkt_tab", "taggers/averaged_perceptron_tagger_eng", "corpora/wordnet"):
        if place != missing:
            (tmp_path / "nltk_data" / place).mkdir(parents=True)
    with pytest.raises(MissingLanguageError, match=f"nltk_data/{missing}` does not exist"):
        english(tmp_path)
    assert nltk.data.path == before


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nltk", None)
    with pytest.raises(MissingLanguageError, match="package `nltk` is not installed, run `make language`"):
        english(tmp_path / "other")
