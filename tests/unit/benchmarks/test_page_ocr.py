"""Dense OCR: edit distance and token overlap by hand, BLEU by hand and from NLTK, METEOR with a
WordNet of three words.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.answers.nouns import MissingLanguageError
from perceptune.core.answers.text_overlap import bleu, meteor
from perceptune.core.benchmarks.benchmark import Answered
from perceptune.core.rewards.reward import Answers

from tests.plugins import BENCHMARKS, REWARDS
from tests.unit.benchmarks.answering import shuffled, through_the_stages, values
from tests.unit.benchmarks.tables import drawn_names

words = str.split
TRUTH = words("It is a guide to action that ensures that the military will forever heed Party commands")
ANSWER = words("It is a guide to action which ensures that the military always obeys the commands of the party")


def scored(texts: list[str | None], targets: list[str], resources: Path | None = None) -> list[Answered]:
    present = [i for i, text in enumerate(texts) if text is not None]
    n = len(present)
    scores = REWARDS["page_text"](
        Answers(
            [str(texts[i]) for i in present], [targets[i] for i in present], np.full((n, 4), np.nan), np.ones((n, 2)), "original",
            resources=resources,
        )
    )  # fmt: skip
    at = {i: place for place, i in enumerate(present)}
    return [
        Answered(
            f"p{i}", "ocr", "read", text, targets[i], None,
            {k: float(v[at[i]]) for k, v in scores.components.items()} if i in at else {}, None, {},
        )
        for i, text in enumerate(texts)
    ]  # fmt: skip


def test_bleu_by_hand() -> None:
    """18 words against 16 true ones share 11 of 18 unigrams, 8 of 17 bigrams, 6 of 16 trigrams and
    4 of 15 4-grams, without a brevity penalty.
    """
    assert bleu(TRUTH, ANSWER) == pytest.approx((11 / 18 * 8 / 17 * 6 / 16 * 4 / 15) ** 0.25)
    assert bleu(TRUTH, ANSWER) == pytest.approx(0.41180376356915777)  # NLTK 3.10.4's sentence_bleu
    assert bleu(words("a b c d e f"), words("a b c d")) == pytest.approx(math.exp(1 - 6 / 4))
    assert bleu(words("a b c d"), words("a b c d e f")) == pytest.approx((4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    assert bleu(words("the cat is on the mat"), words("the cat on the mat")) == 0  # no shared 4-gram
    assert bleu(words("a b c d"), words("a a a a")) == 0
    assert bleu([], []) == bleu(["a"], []) == bleu([], ["a"]) == 0
    assert bleu(TRUTH, TRUTH) == 1


def test_edit_distance_and_token_overlap() -> None:
    """Precision refers to the answer; Fox's script swaps precision and recall."""
    answers = scored(["a b x", "hello", "", "sitting"], ["a b c d", "hello world", "abc", "kitten"])
    ned = [a.components["ned"] for a in answers]
    assert ned == pytest.approx([3 / 7, 6 / 11, 1, 3 / 7])
    first = answers[0].components
    assert (first["token_precision"], first["token_recall"], first["token_f1"]) == pytest.approx((2 / 3, 1 / 2, 4 / 7))


def test_the_tools_order_exchanges_truth_and_answer() -> None:
    """BLEU penalises an answer that stops early, but not with Fox's swapped arguments."""
    answers = scored(["a b c d"], ["a b c d e f"])
    assert answers[0].components["bleu"] == pytest.approx(math.exp(-1 / 2))
    assert answers[0].components["bleu_fox"] == pytest.approx((4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_invariants() -> None:
    pages = ["one two three four five", "six seven eight nine", "ten"]
    perfect = values("page_ocr", scored(list(pages[:2]), pages[:2]))
    assert perfect["ned"] == 0
    assert all(perfect[name] == 1 for name in ("token_f1", "token_precision", "token_recall", "bleu", "bleu_fox"))
    mixed = scored(["one two", None, "eleven"], pages)
    found = values("page_ocr", mixed)
    assert found["ned"] == pytest.approx((1 - 7 / 23 + 1 + 4 / 6) / 3)  # a page without an answer has distance 1
    assert values("page_ocr", shuffled(mixed, 1)) == pytest.approx(found, nan_ok=True)
    assert all(math.isnan(v) for v in values("page_ocr", []).values())


def test_without_its_resources_meteor_is_not_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = values("page_ocr", scored(["a b"], ["a b"]))
    assert math.isnan(found["meteor"]) and math.isnan(found["meteor_fox"])
    assert found["token_f1"] == 1
    assert "METEOR is not measured: key `resources`" in capsys.readouterr().err
    assert "wordnet" in BENCHMARKS["page_ocr"].metrics["meteor"].needs
    with pytest.raises(MissingLanguageError):
        meteor(tmp_path)


def test_chinese_pages_have_an_edit_distance_only() -> None:
    found = values("page_ocr", scored(["页面", "page one"], ["页面文本", "page one"]))
    assert found["ned"] == pytest.approx(0.25)
    assert math.isnan(found["token_f1"]) and math.isnan(found["bleu"])


def small_wordnet(folder: Path) -> Path:
    """A WordNet in which `car` and `auto` are synonyms, in WordNet's file format."""
    home = folder / "nltk_data" / "corpora" / "wordnet"
    home.mkdir(parents=True)
    licence = "  1 a licence of its own\n"
    synset = "{:08} 03 n 02 car 0 auto 0 000 | a vehicle  \n"
    data = licence + synset.format(len(licence))
    (home / "data.noun").write_text(data)
    (home / "index.noun").write_text(licence + "".join(f"{w} n 1 0 1 0 {len(licence):08}  \n" for w in ("auto", "car")))
    for part in ("adj", "adv", "verb"):
        (home / f"data.{part}").write_text(licence)
        (home / f"index.{part}").write_text(licence)
    for part in ("adj", "adv", "noun", "verb"):
        (home / f"{part}.exc").write_text("")
    (home / "lexnames").write_text("00\tadj.all\t3\n01\tadj.pert\t3\n02\tadv.all\t4\n03\tnoun.Tops\t1\n")
    (home / "cntlist.rev").write_text("")
    (home / "index.sense").write_text("")
    return folder


def test_meteor_by_hand(tmp_path: Path) -> None:
    """Exact `the`, stemmed `walk`, synonym `car`: 3 matches of 4 answer words and 5 true words, in
    2 chunks.
    """
    pytest.importorskip("nltk", reason="METEOR needs NLTK (make language)")
    similar = meteor(small_wordnet(tmp_path))
    precision, recall, chunks = 3 / 4, 3 / 5, 2
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    expected = (1 - 0.5 * (chunks / 3) ** 3) * mean
    assert similar(words("the car we walked by"), words("the auto walks past")) == pytest.approx(expected)
    assert similar(["a"], ["b"]) == 0
    answers = scored(["the auto walks past"], ["the car we walked by"], tmp_path)
    assert values("page_ocr", answers)["meteor"] == pytest.approx(expected)


def test_official_file_through_all_stages(tmp_path: Path) -> None:
    def record(name: str, text: str) -> dict[str, Any]:
        turns = [{"from": "human", "value": "<image>\nOCR:"}, {"from": "gpt", "value": text}]
        return {"image": name, "conversations": turns}

    drawn_names(tmp_path, ["1.png", "2.png"])
    file = tmp_path / "en_page_ocr.json"
    file.write_text(json.dumps([record("1.png", "one two three four"), record("2.png", "abcd")]))
    data = FileDataset(kind="ocr_pages", path=str(file), split="test")
    table = through_the_stages(tmp_path, "page_ocr", data, {"record-1": "one two three four", "record-2": "abxd"})
    found = {r["metric"]: r for r in table.filter(condition="greedy").iter_rows(named=True)}
    assert found["ned"]["value"] == pytest.approx(1 / 8)  # one of four letters on one of two pages
    assert found["bleu"]["value"] == found["token_f1"]["value"] == 0.5
    assert found["meteor"]["value"] is None and "wordnet" in found["meteor"]["reason"]
    level = {(r["k"], r["metric"]): r for r in table.filter(condition="density").iter_rows(named=True)}
    assert {k for k, _ in level} == {1, 4}  # of the quartiles of 4 and 18 characters
    assert (level[1, "ned"]["value"], level[4, "ned"]["value"]) == (1 / 4, 0)
    assert (level[1, "ned"]["n"], level[1, "characters"]["value"], level[4, "characters_min"]["value"]) == (1, 4, 18)
    assert {metric for _, metric in level} >= set(found)
