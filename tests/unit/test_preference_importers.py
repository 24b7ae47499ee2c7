"""Other trainers' preference formats: the imported rows, and rejected records with their reasons."""

from collections.abc import Mapping
from typing import Any

import pytest
from perceptune.contracts.config import FileDataset
from perceptune.core.data.row_checks import RowError, checked_row
from perceptune.core.importers.importer import made
from perceptune.core.importers.trl import row as trl_row

from tests.plugins import IMPORTERS

BLOCK = FileDataset(kind="jsonl", path="x", task="open")
GOOD_BAD = [{"text": "a cat", "reward": 1.0}, {"text": "a dog", "reward": 0.0}]


class Records:
    """A source of records in memory."""

    def __init__(self, *records: Any) -> None:
        self._records = records

    def records(self, name: str | None = None) -> Any:
        return ((f"line {n}", record) for n, record in enumerate(self._records, 1))

    def names(self, pattern: str) -> list[str]:
        return []


def row(kind: str, record: Any) -> Any:
    """The row, or the reason for its rejection."""
    ((_, found),) = IMPORTERS[kind].rows(Records(record))  # type: ignore[arg-type]
    return str(found) if isinstance(found, RowError) else found


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def parts(*texts: str | None) -> list[dict[str, Any]]:
    return [{"type": "image"} if text is None else {"type": "text", "text": text} for text in texts]


GIVEN = {"images": ["1.png"]}
PAIRS: list[tuple[str, Mapping[str, Any]]] = [
    ("trl", {"prompt": "what?", "chosen": "a cat", "rejected": "a dog"}),
    ("trl", {"prompt": [user("what?")], "chosen": [assistant("a cat")], "rejected": [assistant("a dog")]}),
    ("trl", {"prompt": [user(parts(None, "what?"))], "chosen": [assistant(parts("a cat"))], "rejected": [assistant("a dog")]}),
    ("trl", {"chosen": [user("what?"), assistant("a cat")], "rejected": [user("what?"), assistant("a dog")]}),
    # some data sets have the text of the prompt beside conversations: TRL then takes the conversations' own
    ("trl", {"prompt": "what", "chosen": [user("what?"), assistant("a cat")], "rejected": [user("what?"), assistant("a dog")]}),
    ("ms_swift", {"messages": [user("<image>what?"), assistant("a cat")], "rejected_response": "a dog"}),
    ("ms_swift", {"messages": [user("what?"), assistant("a cat")], "rejected_messages": [user("what?"), assistant("a dog")], "rejected_images": ["1.png"]}),
    ("llama_factory", {"conversations": [{"from": "human", "value": "<image>\nwhat?"}], "chosen": {"from": "gpt", "value": "a cat"}, "rejected": {"from": "gpt", "value": "a dog"}}),
    ("llama_factory", {"messages": [user("what?")], "chosen": assistant("a cat"), "rejected": assistant("a dog"), "system": ""}),
    ("llama_factory", {"instruction": "what?", "input": "", "chosen": "a cat", "rejected": "a dog", "history": []}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "record"), PAIRS)
def test_a_pair_is_a_question_and_two_ranked_answers(kind: str, record: Mapping[str, Any]) -> None:
    expected = {"images": ["1.png"], "question": "what?", "answers_given": GOOD_BAD}
    assert row(kind, {**record, **GIVEN}) == expected


def test_a_prompt_in_both_answers_ends_where_they_differ() -> None:
    # the shared start is `The sky is `; its last space belongs to the answers, as in TRL's `extract_prompt`
    found = trl_row({"chosen": "The sky is blue.", "rejected": "The sky is green.", "image": "1.png"})
    assert found["question"] == "The sky is"
    assert [answer["text"] for answer in found["answers_given"]] == [" blue.", " green."]


def test_the_prompt_in_both_answers_is_trls() -> None:
    from trl.data_utils import maybe_extract_prompt

    record = {"chosen": "What is it? A red one", "rejected": "What is it? A round one", "images": ["1.png"]}
    foreign, own = maybe_extract_prompt(dict(record)), trl_row(record)
    assert (own["question"], own["answers_given"][0]["text"]) == (foreign["prompt"], foreign["chosen"])


def test_instruction_and_input_are_two_lines() -> None:
    found = row("llama_factory", {"instruction": "a", "input": "b", "chosen": "c", "rejected": "d", **GIVEN})
    assert found["question"] == "a\nb"


def test_easyr1_and_verl_rows_have_an_answer_and_no_answers() -> None:
    image = {"bytes": b"png", "path": None}
    assert row("easyr1", {"problem": "<image>Find x.", "answer": "3", "images": [image]}) == {
        "images": [image], "question": "Find x.", "answer": "3",
    }  # fmt: skip
    record = {
        "data_source": "geometry3k", "prompt": [user("<image><image>Find x.")], "images": [image, {"image": "2.png"}],
        "reward_model": {"style": "rule", "ground_truth": "3"}, "extra_info": {"index": 4, "task": "math", "id": "g-4"},
    }  # fmt: skip
    assert row("verl", record) == {
        "images": [image, "2.png"], "question": "Find x.", "answer": "3", "id": "g-4", "given_task": "math",
        "data_source": "geometry3k", "reward_model": record["reward_model"], "extra_info": {"index": 4},
    }  # fmt: skip


@pytest.mark.parametrize("truth", [["3", "three"], {"target": "3"}, True, None])
def test_a_ground_truth_that_is_neither_text_nor_number_is_rejected(truth: Any) -> None:
    reason = f"is {truth!r}, expected text or a number"
    record = {"prompt": [user("q")], "images": ["1.png"], "reward_model": {"style": "rule", "ground_truth": truth}}
    assert row("verl", record) == f"`reward_model.ground_truth` {reason}"
    assert row("easyr1", {"problem": "q", "answer": truth, "images": ["1.png"]}) == f"`answer` {reason}"
    assert "key `answer` is missing" in row("easyr1", {"problem": "q", "images": ["1.png"]})
    assert "expected text or a number" in row("verl", {**record, "reward_model": {"style": "rule"}})


def test_only_a_page_may_have_an_empty_text_as_its_answer() -> None:
    page = {"problem": "Read.", "answer": "", "images": ["1.png"]}
    assert row("easyr1", {**page, "task": "ocr"})["answer"] == ""
    assert "answer" not in row("easyr1", {**page, "task": "open"})
    assert "answer" not in row("easyr1", page)


def test_pictures_may_stand_before_or_behind_the_text_in_any_number() -> None:
    for text in ("<image>\n<image>\nSame?", "Same?\n<image><image>", "Same?"):
        assert row("easyr1", {"problem": text, "answer": "no", "images": ["1.png", "2.png"]})["question"] == "Same?"


def test_blanks_around_a_question_go_with_its_marks() -> None:
    assert row("easyr1", {"problem": "<image> Same? \n", "answer": "no", "images": ["1.png"]})["question"] == "Same?"
    record = {
        "prompt": [user(" Same? \n")],
        "chosen": [assistant("a")],
        "rejected": [assistant("b")],
        "images": ["1.png"],
    }
    assert row("trl", record)["question"] == " Same? \n"


def test_scores_are_rewards() -> None:
    record = {"prompt": "what?", "chosen": "a cat", "rejected": "a dog", "image": "1.png"}
    assert [a["reward"] for a in row("trl", {**record, "score_chosen": 0.75, "score_rejected": 0})["answers_given"]] == [0.75, 0.0]  # fmt: skip
    assert "`score_chosen` 1 is below `score_rejected` 2" in row("trl", {**record, "score_chosen": 1, "score_rejected": 2})  # fmt: skip
    assert row("trl", {**record, "score_chosen": None, "score_rejected": None})["answers_given"] == GOOD_BAD


@pytest.mark.parametrize(
    ("good", "bad", "reason"),
    [
        (
            "7.5",
            "3.0",
            "`score_chosen` is '7.5' and `score_rejected` '3.0', expected two finite numbers or none",
        ),
        (0.9, None, "`score_chosen` is 0.9 and `score_rejected` None"),
        (None, 0.9, "`score_chosen` is None and `score_rejected` 0.9"),
        (0.7, float("nan"), "`score_rejected` nan"),
        (float("inf"), 0.2, "`score_chosen` is inf"),
        (True, False, "`score_chosen` is True"),
    ],
)
def test_scores_that_are_no_rewards_are_not_replaced_by_others(good: Any, bad: Any, reason: str) -> None:
    record = {"prompt": "what?", "chosen": "a cat", "rejected": "a dog", "image": "1.png"}
    assert reason in row("trl", {**record, "score_chosen": good, "score_rejected": bad})


@pytest.mark.parametrize(
    ("columns", "pictures"),
    [
        ({"file_name": "1.png"}, ["1.png"]),
        ({"image_file_name": "1.png"}, ["1.png"]),
        ({"file_names": ["1.png", "2.png"]}, ["1.png", "2.png"]),
        ({"images_file_names": ["1.png", "2.png"]}, ["1.png", "2.png"]),
        ({"image": "1.png", "images": ["1.png"]}, ["1.png"]),
        ({"image": "1.png", "images": []}, ["1.png"]),
    ],
)
def test_names_of_image_columns_that_datasets_knows(columns: dict[str, Any], pictures: list[str]) -> None:
    found = row("trl", {"prompt": "what?", "chosen": "a cat", "rejected": "a dog", **columns})
    assert found == {"images": pictures, "question": "what?", "answers_given": GOOD_BAD}


def test_a_file_name_is_not_an_image_if_there_are_images() -> None:
    record_of_trl = {"chosen": "a cat", "rejected": "a dog", "file_name": "COCO_1.jpg"}
    assert row("trl", {**record_of_trl, "prompt": "what?", "images": ["1.png"]}).items() >= {"images": ["1.png"], "file_name": "COCO_1.jpg"}.items()  # fmt: skip
    prompt = [user([{"type": "image", "image": "1.png"}, {"type": "text", "text": "what?"}])]
    found = row("trl", {"chosen": [assistant("a cat")], "rejected": [assistant("a dog")], "prompt": prompt, "file_name": "x"})  # fmt: skip
    assert found["images"] == ["1.png"]


STORED = {"bytes": b"png", "path": "1.png"}


@pytest.mark.parametrize(
    ("brought", "named", "agree"),
    [
        ("1.png", ["1.png"], True),
        (STORED, [{"bytes": b"png", "path": None}], True),
        (STORED, ["images/1.png"], True),
        ({"bytes": b"png", "path": None}, ["1.png"], True),  # which cannot be compared
        ("1.png", [], True),
        ("1.png", ["2.png"], False),
        ("1.png", ["sub/1.png"], False),
        ("1.png", ["1.png", "2.png"], False),
        (STORED, [{"bytes": b"other", "path": "1.png"}], False),
        (STORED, ["2.png"], False),
    ],
)
def test_pictures_of_a_message_and_of_the_record_are_the_same(brought: Any, named: list[Any], agree: bool) -> None:
    prompt = [user([{"type": "image", "image": brought}, {"type": "text", "text": "what?"}])]
    answers = {"chosen": [assistant("a cat")], "rejected": [assistant("a dog")]}
    found = row("trl", {"prompt": prompt, **answers, "images": named})
    if agree:
        assert found["images"] == [brought]
    else:
        assert "the message has the images [" in found
        assert "`images` has [" in found
        assert "expected the same images, or images in one place only" in found
    columns = row("trl", {"prompt": "what?", "chosen": "a", "rejected": "b", "image": brought, "images": named})
    assert isinstance(columns, dict) == agree


def test_columns_with_our_names_count_if_they_can_be_meant() -> None:
    record = {"prompt": "what?", "chosen": "a cat", "rejected": "a dog", "images": ["1.png"]}
    own = {"id": 7, "task": "existence", "split": "test", "answer": "yes", "box": [1, 2, 3, 4]}
    assert row("trl", {**record, **own}).items() >= own.items()
    foreign = {"id": ["x"], "task": "math", "answer": {"a": 1}, "box": "none", "question": "other"}
    found = row("trl", {**record, **foreign, "model": "gpt"})
    assert {k: v for k, v in found.items() if k.startswith("given_")} == {f"given_{k}": v for k, v in foreign.items()}
    assert found["model"] == "gpt"
    assert found["question"] == "what?"


def test_the_answers_reach_the_examples_table() -> None:
    found = checked_row(
        row("trl", {"prompt": "what?", "chosen": "a cat", "rejected": "a dog", "image": "1.png"}), BLOCK
    )
    assert found["source"] == '{"answers_given": [{"text": "a cat", "reward": 1.0}, {"text": "a dog", "reward": 0.0}]}'


PAIR = {"chosen": "a cat", "rejected": "a dog"}
REFUSED: list[tuple[str, Mapping[str, Any], str]] = [
    ("trl", {"prompt": "what?", **GIVEN}, "key `chosen` is missing"),
    ("trl", {"prompt": "what?", **PAIR}, "no `images`, expected at least one"),
    ("trl", {"prompt": "what?", "chosen": "a", "rejected": "a", **GIVEN}, "`chosen` and `rejected` are identical, expected different answers"),
    ("trl", {"prompt": [{"role": "system", "content": "Be brief."}, user("what?")], **PAIR, "chosen": [assistant("x")], **GIVEN}, "system message 'Be brief.', expected none"),
    ("trl", {"prompt": [user("a"), assistant("b"), user("c")], "chosen": [assistant("x")], "rejected": [assistant("y")], **GIVEN}, "turns user, assistant, user, expected one user turn"),
    ("trl", {"chosen": [user("a"), assistant("x")], "rejected": [user("b"), assistant("y")], **GIVEN}, "`chosen` and `rejected` have different questions, expected the same"),
    ("trl", {"prompt": [user("<image> or <image>?")], "chosen": [assistant("x")], "rejected": [assistant("y")], "images": ["1.png", "2.png"]}, "an image inside the text, expected all images before the text"),
    ("trl", {"prompt": "<image><image>what?", **PAIR, **GIVEN}, "2 `<image>` placeholders for 1 images, expected 1 or none"),
    ("trl", {"prompt": [{"role": "tool", "content": "x"}], "chosen": [assistant("x")], "rejected": [assistant("y")], **GIVEN}, "expected role 'user' or"),
    ("trl", {"prompt": [user([{"type": "video"}])], "chosen": [assistant("x")], "rejected": [assistant("y")], **GIVEN}, "expected `image` or `text`"),
    ("trl", {"prompt": "what?", "chosen": [assistant(parts(None))], "rejected": "x", **GIVEN}, "turns assistant, expected one user turn and one assistant turn"),
    ("trl", {"prompt": "what?", **PAIR, **GIVEN, "tools": ["search"]}, "`tools` is ['search'], expected none"),
    ("easyr1", {"answer": "3", **GIVEN}, "key `problem` is missing"),
    ("easyr1", {"problem": "<image>a", "answer": "3", **GIVEN, "videos": ["1.mp4"]}, "`videos` is ['1.mp4'], expected none"),
    ("verl", {"prompt": [user("a")], "reward_model": "rule", **GIVEN}, "`reward_model` is 'rule', expected an object"),
    ("ms_swift", {"messages": [user("a"), assistant("b"), user("c"), assistant("d")], "rejected_response": "x", **GIVEN}, "turns user, assistant, user, assistant"),
    ("ms_swift", {"messages": [user("a"), assistant("b")], **GIVEN}, "key `rejected_response` is missing"),
    ("ms_swift", {"messages": [user("a"), assistant("b")], "rejected_response": ["x"], **GIVEN}, "`rejected_response` is ['x'], expected text"),
    ("ms_swift", {"messages": [user("a"), assistant("b")], "rejected_response": "c", "rejected_images": ["2.png"], **GIVEN}, "`rejected_images` differs from `images`"),
    ("ms_swift", {"messages": [user("a <bbox>"), assistant("b")], "rejected_response": "c", "objects": {"bbox": [1]}, **GIVEN}, "`objects` fills `<bbox>` and `<ref-object>` placeholders"),
    ("ms_swift", {"messages": [user("a <bbox>"), assistant("b")], "rejected_response": "c", **GIVEN}, "`messages`: `<bbox>` in the text and no `objects` to fill it"),
    ("ms_swift", {"messages": [user("a"), assistant("<bbox>")], "rejected_response": "c", **GIVEN}, "`messages`: `<bbox>` in the text and no `objects` to fill it"),
    ("ms_swift", {"messages": [user("a"), assistant("b")], "rejected_response": "<ref-object>", **GIVEN}, "the rejected answer: `<ref-object>` in the text"),
    ("ms_swift", {"messages": [user("a"), assistant("b")], "rejected_messages": [user("a"), assistant("<bbox>")], **GIVEN}, "the rejected answer: `<bbox>`"),
    ("llama_factory", {"instruction": "a", **PAIR, "system": "Be brief.", **GIVEN}, "`system` is 'Be brief.', expected none"),
    ("llama_factory", {"instruction": "a", **PAIR, "history": [["x", "y"]], **GIVEN}, "`history` is [['x', 'y']], expected none"),
    ("llama_factory", {"conversations": [], **PAIR, **GIVEN}, "`conversations` is [], expected a list of messages"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "record", "reason"), REFUSED)
def test_unsupported_records_are_rejected_with_a_reason(kind: str, record: Mapping[str, Any], reason: str) -> None:
    assert reason in row(kind, record)


@pytest.mark.parametrize("kind", ["trl", "easyr1", "verl", "ms_swift", "llama_factory"])
@pytest.mark.parametrize("record", [None, 3, "text", [], {}, {"prompt": 3, "chosen": 3, "rejected": None, "images": 3}])
def test_no_record_is_a_bug(kind: str, record: Any) -> None:
    assert isinstance(row(kind, record), str)
    assert isinstance(made(trl_row, record), RowError)
