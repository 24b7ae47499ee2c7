"""AMBER on its full official files: yes/no questions and descriptions with known nouns, compared
with plain loops over the annotations.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.contracts.errors import UserError
from perceptune.core.answers.nouns import Language, MissingLanguageError, english
from perceptune.core.answers.yes_no import beginning
from perceptune.core.benchmarks.amber import amber_nouns
from perceptune.core.benchmarks.amber.answers import official_answer
from perceptune.core.benchmarks.amber.data import PUBLISHED
from perceptune.core.data.read_files import Files
from perceptune.core.rewards.reward import Answers

from tests.official_data import official
from tests.plugins import BENCHMARKS
from tests.unit.benchmarks.answering import (
    IMPORTERS,
    Row,
    answered,
    drawn_images,
    failures,
    questions,
    shuffled,
    through_the_stages,
    values,
)

SAID = ("Yes", "No", " No\n", "yes", "no", "Yes, it is.", "No.", "NO", "Not sure", "", "It does.")
STRANGE = ("unicorn", "Dog", "teapot")
"""Nouns that are not in AMBER's vocabulary."""


def alike(one: str, other: str) -> bool:
    """Stand-in for word vectors: equal words, or long words with the same first four letters."""
    return one == other or (min(len(one), len(other)) > 4 and one[:4] == other[:4])


@pytest.fixture
def language(monkeypatch: pytest.MonkeyPatch) -> Language:
    """Every word is a noun."""
    stand_in = Language(nouns=str.split, similar=alike)
    monkeypatch.setattr(amber_nouns, "english", lambda resources: stand_in)
    return stand_in


@pytest.fixture(scope="module")
def folder() -> Path:
    return official("amber")


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    return questions("amber", folder)


@pytest.fixture(scope="module")
def annotations(folder: Path) -> list[dict[str, Any]]:
    return list(json.loads((folder / "annotations.json").read_text()))


def yes_no_rows(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == "existence"]


def described(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == "open"]


def test_official_row_counts(rows: list[Row], folder: Path) -> None:
    kinds = Counter((row["type"], row.get("answer")) for row in rows)
    assert kinds == {
        ("generative", None): 1004,
        ("discriminative-attribute-state", "yes"): 2382, ("discriminative-attribute-state", "no"): 2382,
        ("discriminative-attribute-number", "yes"): 1036, ("discriminative-attribute-number", "no"): 1036,
        ("discriminative-attribute-action", "yes"): 396, ("discriminative-attribute-action", "no"): 396,
        ("discriminative-hallucination", "no"): 4924, ("discriminative-relation", "yes"): 975, ("relation", "no"): 689,
    }  # fmt: skip
    assert [row["id"] for row in rows] == [str(number) for number in range(1, 15221)]
    assert len({row["image"] for row in rows}) == 1004
    for name, number in PUBLISHED.items():
        source = Files(folder / name)
        assert len(questions("amber", folder / name)) == number == IMPORTERS["amber"].published(source)["test"]


# yes/no questions


def by_hand(rows: list[Row], texts: list[str], read: Callable[[str], str | None]) -> dict[str, dict[str, int]]:
    """The official script's counters: questions, right answers, true no, hits, predicted no,
    correct no.
    """
    groups = ("discriminative", "existence", "attribute", "state", "number", "action", "relation")
    names = ("num", "correct", "no_num", "no_score", "ans_no_num", "ans_no_score")
    table = {group: dict.fromkeys(names, 0) for group in groups}
    for row, text in zip(rows, texts, strict=True):
        counted_in = ["discriminative"]
        if row["type"].startswith("discriminative-attribute"):
            counted_in += ["attribute", row["type"].rsplit("-", 1)[1]]
        else:
            counted_in.append("existence" if row["type"] == "discriminative-hallucination" else "relation")
        predicted = read(text)
        for group in counted_in:
            counters = table[group]
            counters["num"] += 1
            counters["correct"] += predicted == row["answer"]
            if row["answer"] == "no":
                counters["no_num"] += 1
                counters["no_score"] += predicted == "no"
            if predicted == "no":
                counters["ans_no_num"] += 1
                counters["ans_no_score"] += row["answer"] == "no"
    return table


def exactly(text: str) -> str | None:
    return "yes" if text.strip() == "Yes" else "no" if text.strip() == "No" else None


def begins(text: str) -> str | None:
    lower = text.strip().lower()
    return "yes" if lower[:3] == "yes" else "no" if lower[:2] == "no" else None


def check(rows: list[Row], texts: list[str]) -> dict[str, float]:
    found = values("amber_discriminative", answered("amber_discriminative", rows, texts))
    for ending, read in (("", exactly), ("_by_beginning", begins)):
        for group, c in by_hand(rows, texts, read).items():
            precision = c["ans_no_score"] / c["ans_no_num"] if c["ans_no_num"] else 0.0
            recall = c["no_score"] / c["no_num"]
            f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            wanted = {"accuracy": c["correct"] / c["num"], "precision": precision, "recall": recall, "f1": f1}
            for name, value in wanted.items():
                assert found[f"{group}_{name}{ending}"] == pytest.approx(value, abs=1e-12), (group, name, ending)
            # the script's last digits: it rounds percentages before F1, and adds up to 0.001 to the
            # denominator
            printed_precision, printed_recall = round(precision * 100, 1) / 100, round(recall * 100, 1) / 100
            extra = 0.001 if group == "existence" else 0.0001
            printed = 200 * printed_precision * printed_recall / (printed_precision + printed_recall + extra)
            assert 100 * f1 == pytest.approx(round(printed, 1), abs=0.15)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_any_answers(rows: list[Row], seed: int) -> None:
    draw = Random(seed)
    found = check(yes_no_rows(rows), [draw.choice(SAID) for _ in yes_no_rows(rows)])
    assert found["discriminative_f1"] < found["discriminative_f1_by_beginning"]


def test_all_no(rows: list[Row]) -> None:
    """The truth is no for 9,427 of 14,216 questions: all 4,924 about existence, 689 of 1,664 about
    relations.
    """
    found = check(yes_no_rows(rows), ["No"] * 14216)
    assert found["discriminative_precision"] == pytest.approx(9427 / 14216)
    assert found["discriminative_recall"] == 1.0
    assert found["existence_f1"] == 1.0
    assert found["relation_precision"] == pytest.approx(689 / 1664)
    assert found["state_f1"] == found["attribute_f1"] == pytest.approx(2 / 3)


def test_all_yes(rows: list[Row]) -> None:
    found = check(yes_no_rows(rows), ["Yes"] * 14216)
    assert found["discriminative_f1"] == found["existence_accuracy"] == 0.0
    assert found["relation_accuracy"] == pytest.approx(975 / 1664)
    assert found["action_accuracy"] == 0.5


def test_perfect(rows: list[Row]) -> None:
    found = check(yes_no_rows(rows), [row["answer"].capitalize() for row in yes_no_rows(rows)])
    assert set(found.values()) == {1.0}


@pytest.mark.parametrize("text", ["", None])
def test_empty_and_missing_answers(rows: list[Row], text: str | None) -> None:
    answers = answered("amber_discriminative", yes_no_rows(rows), [text] * 14216)
    assert set(values("amber_discriminative", answers).values()) == {0.0}
    for metric in ("discriminative_f1", "discriminative_f1_by_beginning"):
        assert failures("amber_discriminative", answers, metric) == (14216, 14216)
    assert failures("amber_discriminative", answers, "relation_f1") == (1664, 1664)


def test_words_after_yes_are_wrong_officially_and_counted(rows: list[Row]) -> None:
    answers = answered("amber_discriminative", yes_no_rows(rows), ["No, it is not."] * 14216)
    found = values("amber_discriminative", answers)
    assert (found["discriminative_f1"], found["existence_f1_by_beginning"]) == (0.0, 1.0)
    assert failures("amber_discriminative", answers, "discriminative_f1") == (14216, 14216)
    assert failures("amber_discriminative", answers, "discriminative_f1_by_beginning") == (14216, 0)


def test_order_does_not_matter(rows: list[Row]) -> None:
    draw = Random(4)
    answers = answered("amber_discriminative", yes_no_rows(rows), [draw.choice(SAID) for _ in yes_no_rows(rows)])
    assert values("amber_discriminative", shuffled(answers, 1)) == values("amber_discriminative", answers)


def test_known_counts() -> None:
    """80 true yes, 10 false yes, 20 false no, 90 true no, where "no" is positive; existence at
    recall 71.2 %.
    """
    made = [("Yes", "yes")] * 80 + [("Yes", "no")] * 10 + [("No", "yes")] * 20 + [("No", "no")] * 90
    found = values("amber_discriminative", small([(predicted, true, "relation") for predicted, true in made]))
    assert found["relation_precision"] == pytest.approx(0.8182, abs=5e-5)
    assert found["relation_recall"] == 0.9
    assert found["relation_f1"] == pytest.approx(0.8571, abs=5e-5)
    exist = [("No" if number < 712 else "Yes", "no", "discriminative-hallucination") for number in range(1000)]
    found = values("amber_discriminative", small(exist))
    assert (found["existence_precision"], found["existence_recall"]) == (1.0, 0.712)
    assert found["existence_f1"] == pytest.approx(0.8318, abs=5e-5)
    assert np.isnan(found["relation_f1"])  # there are no such questions


def small(made: list[tuple[str, str, str]]) -> list[Any]:
    rows = [
        {"id": str(n), "question": "?", "answer": true, "type": kind, "task": "existence", "image_file": str(n)}
        for n, (_, true, kind) in enumerate(made)
    ]
    return answered("amber_discriminative", rows, [text for text, _, _ in made])


@pytest.mark.parametrize(
    ("text", "exact", "start"),
    [
        ("Yes", "yes", "yes"), ("No", "no", "no"), (" Yes", "yes", "yes"), ("yes", None, "yes"), ("No.", None, "no"), ("", None, None),
        ("Nothing", None, "no"), ("It is", None, None), ("Yes, but no", None, "yes"),
    ],
)  # fmt: skip
def test_rules(text: str, exact: str | None, start: str | None) -> None:
    assert (official_answer(text), beginning(text)) == (exact, start)


# descriptions


def drawn_nouns(rows: list[Row], seed: int) -> list[str]:
    """Nouns from the truth, the expected hallucinations, the rest of the vocabulary, and outside
    it.
    """
    draw = Random(seed)
    found = []
    for row in rows:
        related = [word for words in row["association"].values() for word in words] or row["truth"]
        pools = (row["truth"], row["hallu"], related, row["vocabulary"], row["safe_words"], STRANGE)
        found.append(" ".join(draw.choice(draw.choice(pools)) for _ in range(draw.randint(0, 12))))
    return found


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


# import and stages


@pytest.fixture
def data(tmp_path: Path, folder: Path) -> Iterator[Path]:
    """A small copy in the authors' layout, with the queries in a separate folder."""
    (tmp_path / "query").mkdir()
    for name in ("annotations.json", "relation.json", "safe_words.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    records = json.loads((folder / "query_all.json").read_text())
    (tmp_path / "query" / "query_all.json").write_text(json.dumps([records[0], records[1004]]))
    return tmp_path


def test_layout_of_the_authors_folder(data: Path) -> None:
    assert [row["id"] for row in questions("amber", data)] == ["1", "1005"]


def test_mistakes(data: Path) -> None:
    (data / "query" / "query_all.json").write_text(json.dumps([{"id": 15221, "image": "a.jpg", "query": "?"}]))
    ((_, refused),) = IMPORTERS["amber"].rows(Files(data))
    assert str(refused) == "`id` is 15221, expected a number from 1 to 15220, as in `annotations.json`"
    (data / "safe_words.txt").unlink()
    with pytest.raises(UserError, match=r"safe_words.txt` does not exist"):
        list(IMPORTERS["amber"].rows(Files(data)))


def test_full_file_through_the_stages(rows: list[Row], folder: Path, tmp_path: Path, language: Language) -> None:
    """15,220 rows with 1,004 stand-in images go through all stages except sampling."""
    images = drawn_images(tmp_path / "image", [row["image"] for row in rows])
    draw = Random(2)
    nouns = iter(drawn_nouns(described(rows), 2))
    texts: dict[str, str | None] = {
        row["id"]: next(nouns) if row["task"] == "open" else draw.choice(SAID) for row in rows
    }
    dataset = FileDataset(kind="amber", path=str(folder), images=str(images))
    table = through_the_stages(tmp_path, "amber", dataset, texts)
    wanted = values("amber", answered("amber", rows, [texts[row["id"]] for row in rows]))
    assert dict(table.select("metric", "value").iter_rows()) == pytest.approx(wanted, abs=1e-12)
    n = dict(table.select("metric", "n").iter_rows())
    assert (n["discriminative_f1"], n["chair"], n["relation_recall"], n["amber_score"]) == (14216, 1004, 1664, 15220)


def test_full_file_through_the_stages_without_resources(rows: list[Row], folder: Path, tmp_path: Path) -> None:
    images = drawn_images(tmp_path / "image", [row["image"] for row in rows])
    dataset = FileDataset(kind="amber", path=str(folder / "query_generative.json"), images=str(images))
    table = through_the_stages(tmp_path, "amber_generative", dataset, {row["id"]: "A dog." for row in rows})
    assert table["value"].to_list() == [None] * 5
    assert {reason.partition(" the packages")[0] for reason in table["reason"].to_list()} == {"not measured: needs"}


def test_answers_are_scored_alone() -> None:
    """The reward of the yes/no questions also works without sources."""
    answers = Answers(["Yes", "no"], ["yes", "no"], np.full((2, 4), np.nan), np.ones((2, 2)), "padded_square")
    from tests.plugins import REWARDS

    assert REWARDS["amber"](answers).rewards.tolist() == [1.0, 0.0]
