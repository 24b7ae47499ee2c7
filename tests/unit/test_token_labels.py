"""A judge's labels of tokens, and agreement of a selection with them."""

import math
from pathlib import Path

import jinja2
import numpy as np
import pytest
from perceptune.contracts.tables.agreements import AGREEMENTS
from perceptune.contracts.tables.io import write_table
from perceptune.core.comparisons.tokens import Labelled, labels_of, measured, messages, numbers, table_of
from perceptune.report import write
from perceptune.report.sections.comparisons import agreement_rows, comparison_lines, token_rows

PAGE = '{% from "macros.html.jinja" import table with context %}{% include "comparisons.html.jinja" %}'
ANSWER = ["The", " red", " cub", "e", " is", "\n", "left", " of", " the", " cube", ".", "</s>"]


def labelled(verdict: str, tokens: list[str] = ANSWER) -> list[int]:
    """The places of the labelled tokens."""
    return [place for place, one in enumerate(labels_of(verdict, tokens)) if one]


@pytest.mark.parametrize(
    ("verdict", "places"),
    [
        ("[]", []),
        ('["red cube"]', [1, 2, 3]),
        ('["cube", "cube"]', [2, 3, 9]),  # one after the other
        ('["left of", "RED"]', [1, 6, 7]),  # in another order and another case
        ('["is left"]', [4, 6]),  # other white space; the line break between them is no word
        ('["cube."]', [9, 10]),
        ('["cube", "cube", "cube"]', [2, 3, 9]),  # from the start again
        ('Here are [the words]:\n```json\n["red", "cube"]\n```', [1, 2, 3]),
        ('[" red ", " "]', [1]),
    ],
)
def test_phrases_are_mapped_to_tokens(verdict: str, places: list[int]) -> None:
    assert labelled(verdict) == places


def test_a_character_of_several_tokens_has_one_label() -> None:
    assert labelled('["赤い"]', ["", "赤", "い", "", "", "🟥", "です"]) == [0, 1, 2]  # within a text without spaces
    assert labelled('["🟥"]', ["", "赤", "い", "", "", "🟥", "です"]) == [3, 4, 5]
    assert labelled('["né"]', ["n", "", "é"]) == [0, 1, 2]
    assert labelled("[]", []) == []


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [
        ("", "no JSON list of texts"),
        ("The words are red and cube.", "no JSON list of texts"),
        ('["red", "cu', "no JSON list of texts"),
        ("[1, 2]", "no JSON list of texts"),
        ("[" * 5000, "no JSON list of texts"),
        ('{"words": "red"}', "no JSON list of texts"),
        ('["blue"]', "`blue` is not in the answer"),
        ('["cub"]', "`cub` is not in the answer"),  # part of a word
        ('["</s>"]', "`</s>` is not in the answer"),  # the judge is not shown it
    ],
)
def test_verdicts_that_cannot_be_mapped(verdict: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        labels_of(verdict, ANSWER)


def test_the_judge_sees_question_and_answer_without_its_end() -> None:
    (message,) = messages("Which {answer}?", ANSWER)
    assert "Question:\nWhich {answer}?" in message["content"]
    assert "Answer:\nThe red cube is\nleft of the cube.\n\n" in message["content"]
    assert "</s>" not in message["content"]


LABELS = [True, True, True, False, False, False, False, False, False, False]
CHOSEN = [True, True, False, True, True, False, False, False, False, False]
RANDOM = [True, False, False, True, False, True, True, False, False, False]


def test_numbers_of_an_answer() -> None:
    """2 of 3 labelled tokens are among 4 selected: agreement 7/10, by chance (3 * 4 + 7 * 6) / 100."""
    assert table_of(LABELS, CHOSEN).tolist() == [[2, 1], [2, 5]]
    expected = {"precision": 1 / 2, "recall": 2 / 3, "f1": 4 / 7, "agreement": 0.7, "kappa": (0.7 - 0.54) / 0.46}
    assert numbers(LABELS, CHOSEN) == pytest.approx(expected)
    assert numbers(LABELS, RANDOM)["kappa"] == pytest.approx((0.5 - 0.54) / 0.46)
    none = numbers([False, False], [True, False])
    assert (none["precision"], none["kappa"]) == (0, 0)
    assert math.isnan(none["recall"])
    assert all(math.isnan(value) for value in numbers([], []).values())


def test_answers_are_pooled_and_the_difference_is_paired() -> None:
    """Pooled: 3 of 4 labelled among 6 selected of 14 tokens; 1 of 4 among the 6 random ones."""
    second = Labelled("b", [True, False, False, False], [True, True, False, False], [False, True, True, False])
    found = measured([Labelled("a", LABELS, CHOSEN, RANDOM), second], resamples=200, seed=1)
    assert found["selected"]["precision"][0] == pytest.approx(3 / 6)
    assert found["selected"]["recall"][0] == pytest.approx(3 / 4)
    assert found["random"]["f1"][0] == pytest.approx(2 / 10)
    # equal labels 10/14 and 6/14, by chance (4 * 6 + 10 * 8) / 196
    chance = 104 / 196
    kappas = [(share - chance) / (1 - chance) for share in (10 / 14, 6 / 14)]
    assert found["difference"]["kappa"][0] == pytest.approx(kappas[0] - kappas[1])
    # three distinct samples: a a (1/2 - 1/4), a b (3/6 - 1/6), b b (1/2 - 0)
    assert found["difference"]["precision"] == pytest.approx((1 / 3, 1 / 4, 1 / 2))
    alone = measured([second], resamples=200, seed=1)
    assert alone["selected"]["recall"][0] == 1
    assert np.isnan(alone["selected"]["recall"][1:]).all()
    assert np.isnan(measured([], resamples=9, seed=1)["difference"]["f1"]).all()


def test_a_selection_that_is_the_random_one_has_no_difference() -> None:
    same = [Labelled(unit, LABELS, CHOSEN, CHOSEN) for unit in "abc"]
    assert measured(same, resamples=99, seed=0)["difference"] == dict.fromkeys(
        ("precision", "recall", "f1", "agreement", "kappa"), (0, 0, 0)
    )


def test_the_report_has_a_row_per_selection(tmp_path: Path) -> None:
    shared = {
        **dict.fromkeys(AGREEMENTS.columns), "agreement": "words", "source": "cppo@4", "judge": "gpt", "other": "selected tokens",
        "n": 40, "n_unread": 2, "n_unlabelled": 0,
    }  # fmt: skip
    rows = [
        {**shared, "part": part, "metric": metric, "value": value, "ci_low": value - 0.1, "ci_high": value + 0.1}
        for part, value in (("selected", 0.5), ("random", 0.3), ("difference", 0.2))
        for metric in ("precision", "recall", "f1", "agreement", "kappa")
    ]
    write_table(tmp_path / "a.parquet", AGREEMENTS, rows, {})
    tables = {"words": tmp_path / "a.parquet"}
    assert agreement_rows(tables) == []
    found = token_rows(tables)
    assert [row["part"] for row in found] == ["selected", "random", "difference"]
    assert [cell["value"] for cell in found[0]["cells"]] == ["50.0", "50.0", "50.0", "0.500"]
    assert found[2]["cells"][0] == {"name": "precision", "value": "+20.0", "interval": "[+10.0, +30.0]"}
    page = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(write.__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = page.from_string(PAGE).render(comparisons=[], agreements=[], labelled=found)
    for shown in ("cppo@4", "<td>random</td>", "[+10.0, +30.0]", "0.500"):
        assert shown in html, shown
    text = " ".join(" ".join(comparison_lines([], [], found)).split())
    assert "words (tokens of cppo@4 and labels of gpt, random): precision 30.0 [20.0, 40.0]," in text
    assert "n = 40, 2 unreadable" in text
