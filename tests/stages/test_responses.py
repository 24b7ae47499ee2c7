"""The journal of the sampling stage, with an engine that answers instantly (real engines:
tests/workflow, tests/parity).
"""

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from perceptune.contracts.config import EngineBlock, ModelBlock, SamplingBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.provenance.digests import sha256_of_file
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.engines.vllm.requests import Answer, Question
from perceptune.runtime.locks import only_writer
from perceptune.stages.sampling import gather, requests, responses
from PIL import Image

COUNT, N = 10, 3


class Killed(BaseException):
    """Stands in for SIGKILL: nothing handles it."""


class Engine:
    """Answers with a text derived from the seed; dies after `lives` questions."""

    asked: list[str]
    lives: int

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None: ...

    def prepared(self, question: Question) -> Question:
        if "long" in question.messages[0]["content"][-1]["text"]:
            raise ValueError("too long")
        return question

    def answers(
        self, questions: Iterable[tuple[str, Question]], ready: Callable[[], bool]
    ) -> Iterator[tuple[str, list[Answer]]]:
        for name, q in questions:
            if len(Engine.asked) == Engine.lives:
                raise Killed
            Engine.asked.append(q.messages[0]["content"][-1]["text"])
            yield name, [Answer(f"{q.seed}+{i}", [i, q.seed % 1000], [-1.0, -2.0], "stop", 7) for i in range(q.n)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten questions, committed two at a time."""
    monkeypatch.setattr(responses, "start", Engine)
    leave = responses._Commits.__exit__

    def killed(self: Any, kind: Any, *rest: Any) -> None:
        if kind is not Killed:
            leave(self, kind, *rest)

    monkeypatch.setattr(responses._Commits, "__exit__", killed)
    Engine.asked, Engine.lives = [], 1000
    rows = []
    for number in range(COUNT):
        path = tmp_path / f"{number}.png"
        Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
        rows.append({
            "example_id": str(number), "task": "ocr", "question": f"question {number}", "images": [{"bytes": None, "path": str(path)}],
            "image_sha256": [sha256_of_file(path)], "image_hashes": [], "image_sizes": [[8, 8]], "target": "x", "box": None, "split": "train",
            "source": None, "reason": None,
        })  # fmt: skip
    write_table(tmp_path / "examples.parquet", EXAMPLES, rows, {})
    planned(tmp_path)
    return tmp_path


def planned(folder: Path, **changes: Any) -> None:
    config = SamplingBlock(**{"n": N, **changes})
    requests.run_samples(
        dataset="d", examples=folder / "examples.parquet", requests=folder / "requests.parquet", config=config
    )


def sample(
    folder: Path,
    shard: int = 0,
    shards: int = 1,
    weights: str = "w",
    parts: int = 2 * N,
    dtype: str = "float32",
    finished: Path | None = None,
) -> Path:
    target = folder / f"{shard + 1}-of-{shards}.parquet"
    responses.run(
        requests=folder / "requests.parquet", examples={"d": folder / "examples.parquet"}, responses=target,
        journal=folder / "journal", weights=weights, adapter=None, shard=shard, shards=shards, finished=finished,
        model=ModelBlock(path="m", family="llava", dtype=dtype, workers=0, engine=EngineBlock(answers_per_part=parts)),
    )  # fmt: skip
    return target


def gathered(folder: Path, shards: list[Path]) -> list[dict[str, Any]]:
    target = folder / "responses.parquet"
    gather.run(requests=folder / "requests.parquet", shards=shards, responses=target, journal=folder / "journal")
    return read_table(target, RESPONSES).to_pylist()


def interrupted(folder: Path, after: int) -> None:
    Engine.asked, Engine.lives = [], after
    with pytest.raises(Killed):
        sample(folder)
    Engine.asked, Engine.lives = [], 1000


@pytest.mark.parametrize("after", [0, 1, 2, 5, 9])
def test_a_killed_run_goes_on_after_the_last_commit(folder: Path, after: int) -> None:
    whole = read_table(sample(folder), RESPONSES).to_pylist()
    gathered(folder, [folder / "1-of-1.parquet"])  # removes the journal
    interrupted(folder, after)
    assert read_table(sample(folder), RESPONSES).to_pylist() == whole
    assert len(Engine.asked) == COUNT - after // 2 * 2


def test_an_error_loses_no_finished_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finite = math.isfinite
    monkeypatch.setattr(responses.math, "isfinite", lambda x: 1 / 0 if len(Engine.asked) == 8 else finite(x))
    with pytest.raises(ZeroDivisionError):
        sample(folder)
    monkeypatch.undo()
    monkeypatch.setattr(responses, "start", Engine)
    Engine.asked = []
    sample(folder)
    assert Engine.asked == ["question 7", "question 8", "question 9"]


def test_answers_that_wait_are_committed_after_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "COMMIT_SECONDS", 0.0)
    Engine.asked, Engine.lives = [], 4
    with pytest.raises(Killed):
        sample(folder, parts=1000)
    Engine.asked, Engine.lives = [], 1000
    sample(folder, parts=1000)
    assert len(Engine.asked) == COUNT - 4


def test_a_finished_journal_starts_no_engine(folder: Path) -> None:
    sample(folder)
    Engine.lives = 0
    assert read_table(sample(folder), RESPONSES).num_rows == COUNT * N


@pytest.mark.parametrize("shards", [2, 3, 10])
def test_any_number_of_shards_gives_the_same_table(folder: Path, shards: int) -> None:
    whole = gathered(folder, [sample(folder)])
    batches = sorted(Engine.asked)
    Engine.asked = []
    assert gathered(folder, [sample(folder, shard, shards) for shard in range(shards)]) == whole
    assert sorted(Engine.asked) == batches


def test_another_number_of_shards_takes_over_a_journal(folder: Path) -> None:
    whole = gathered(folder, [sample(folder)])
    interrupted(folder, 6)
    assert gathered(folder, [sample(folder, shard, 2) for shard in range(2)]) == whole
    assert len(Engine.asked) == 4


def test_a_damaged_file_is_sampled_again(folder: Path) -> None:
    whole = read_table(sample(folder), RESPONSES).to_pylist()
    part = sorted((folder / "journal").rglob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-20])
    Engine.asked = []
    assert read_table(sample(folder), RESPONSES).to_pylist() == whole
    assert len(Engine.asked) == 2


@pytest.mark.parametrize("changes", [{"weights": "other"}, {"dtype": "bfloat16"}])
def test_answers_of_other_weights_or_settings_are_not_continued(folder: Path, changes: dict[str, Any]) -> None:
    interrupted(folder, 6)
    sample(folder, **changes)
    assert len(Engine.asked) == COUNT


def test_only_changed_requests_are_sampled_again(folder: Path) -> None:
    interrupted(folder, 8)
    planned(folder, limit=9, prompt="{question}")
    sample(folder)
    assert Engine.asked == ["question 8"]


def answers_of(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    return {
        name: [row["text"] for row in rows if row["example_id"] == name] for name in {r["example_id"] for r in rows}
    }


def test_an_added_question_is_the_only_one_that_is_asked(folder: Path) -> None:
    planned(folder, limit=COUNT - 1)
    before = gathered(folder, [sample(folder)])  # and the journal is gone
    planned(folder)
    Engine.asked = []
    after = gathered(folder, [sample(folder, shard, 2, finished=folder / "responses.parquet") for shard in range(2)])
    assert Engine.asked == [f"question {COUNT - 1}"]
    assert {name: texts for name, texts in answers_of(after).items() if name != str(COUNT - 1)} == answers_of(before)
    assert len(after) == COUNT * N


def test_removed_questions_leave_the_table_and_start_no_engine(folder: Path) -> None:
    gathered(folder, [sample(folder)])
    planned(folder, limit=4)
    Engine.asked, Engine.lives = [], 0
    assert len(gathered(folder, [sample(folder, finished=folder / "responses.parquet")])) == 4 * N


@pytest.mark.parametrize("changes", [{"weights": "other"}, {"dtype": "bfloat16"}])
def test_a_finished_table_of_other_weights_or_settings_is_not_taken_over(folder: Path, changes: dict[str, Any]) -> None:
    gathered(folder, [sample(folder)])
    Engine.asked = []
    sample(folder, finished=folder / "responses.parquet", **changes)
    assert len(Engine.asked) == COUNT


def test_a_damaged_finished_table_is_not_taken_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = gathered(folder, [sample(folder)])
    finished = folder / "responses.parquet"
    finished.write_bytes(finished.read_bytes()[:-20])
    Engine.asked = []
    assert gathered(folder, [sample(folder, finished=finished)]) == whole
    assert len(Engine.asked) == COUNT
    assert "its answers will be sampled again" in capsys.readouterr().err


def test_an_answer_that_failed_is_asked_again(folder: Path) -> None:
    image = (folder / "5.png").read_bytes()
    (folder / "5.png").unlink()
    gathered(folder, [sample(folder)])
    (folder / "5.png").write_bytes(image)
    Engine.asked = []
    rows = gathered(folder, [sample(folder, finished=folder / "responses.parquet")])
    assert Engine.asked == ["question 5"]
    assert all(row["text"] is not None for row in rows)


def test_policies_share_random_numbers_and_questions_do_not(folder: Path) -> None:
    """The engine here answers with its seed; adapters that differ in the last bit must not draw differently."""
    first, second = (read_table(sample(folder, weights=w), RESPONSES)["text"].to_pylist() for w in "ab")
    assert first == second
    assert len(set(first)) == COUNT * N


def test_the_first_answers_of_many_are_the_answers_of_few(folder: Path) -> None:
    few = read_table(sample(folder), RESPONSES).drop_columns("key").to_pylist()
    planned(folder, n=N + 2)
    many = read_table(sample(folder), RESPONSES).drop_columns("key").to_pylist()
    assert [row for row in many if row["sample_index"] < N] == few


def test_rows_in_are_rows_out_and_a_failed_row_says_why(folder: Path) -> None:
    Image.new("RGB", (8, 8), "blue").save(folder / "3.png")
    (folder / "5.png").unlink()
    rows = read_table(sample(folder), RESPONSES).to_pylist()
    assert len(rows) == COUNT * N
    failed = {row["example_id"]: row["reason"] for row in rows if row["text"] is None}
    assert failed.keys() == {"3", "5"}
    assert "the image has changed since the import" in failed["3"]
    assert "does not exist" in failed["5"]
    assert all(row["reason"] is None for row in rows if row["text"] is not None)


def test_answers_with_logprobs_that_are_not_numbers_are_no_answers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Engine.answers

    def broken(self: Engine, *given: Any) -> Iterator[tuple[str, list[Answer]]]:
        for name, found in answers(self, *given):
            bad = "7" in Engine.asked[-1]
            yield name, [replace(answer, logprobs=[-1.0, math.nan]) if bad else answer for answer in found]

    monkeypatch.setattr(Engine, "answers", broken)
    rows = read_table(sample(folder), RESPONSES).to_pylist()
    assert {row["example_id"] for row in rows if row["text"] is None} == {"7"}
    assert {row["reason"] for row in rows} == {None, "the model's log-probs are NaN or infinite"}


def test_no_valid_request_is_an_error_with_the_reason(folder: Path) -> None:
    planned(folder, prompt="a long {question}")
    shards = [sample(folder, shard, 2) for shard in range(2)]
    with pytest.raises(UserError, match=r"no request could be sampled\n  request `d/0/original/sampled`: too long"):
        gathered(folder, shards)
    assert not (folder / "responses.parquet").exists()


def test_a_shard_without_a_valid_request_is_no_error(folder: Path) -> None:
    """Whether a run stops must not depend on the number of shards."""
    rows = read_table(folder / "requests.parquet", REQUESTS).to_pylist()
    rows[-1]["messages"][0]["content"][-1]["text"] = "long"
    write_table(folder / "requests.parquet", REQUESTS, rows, {})
    shards = [sample(folder, shard, COUNT, parts=N) for shard in range(COUNT)]
    found = gathered(folder, shards)
    assert [row["reason"] for row in found] == [None] * (COUNT - 1) * N + ["too long"] * N


def test_gathering_forgets_the_journal_and_keeps_the_lineage(folder: Path) -> None:
    gathered(folder, [sample(folder, shard, 2) for shard in range(2)])
    assert not (folder / "journal").exists()
    record = read_lineage(folder / "responses.parquet")
    assert record["stage"] == "sampling.responses"
    assert record["parameters"]["shards"] == 2
    assert record["parameters"]["weights"] == "w"
    assert (
        record["inputs"]["requests"]["sha256"] == hashlib.sha256((folder / "requests.parquet").read_bytes()).hexdigest()
    )


def with_others(folder: Path, **settings: Any) -> responses.Asked:
    """Another job's requests for the same examples."""
    requests.run_samples(
        dataset="d", examples=folder / "examples.parquet", requests=folder / "others.parquet",
        config=SamplingBlock(**{"n": 2, "seed": 5, **settings}),
    )  # fmt: skip
    return responses.Asked(folder / "others.parquet", {"d": folder / "examples.parquet"}, folder / "journal-of-others")


def sample_both(folder: Path, requests: str, journal: str, beside: list[responses.Asked]) -> list[dict[str, Any]]:
    target = folder / f"answers-{requests}"
    responses.run(
        requests=folder / requests, examples={"d": folder / "examples.parquet"}, responses=target, journal=folder / journal,
        weights="w", adapter=None, shard=0, shards=1, beside=beside,
        model=ModelBlock(path="m", family="llava", dtype="float32", workers=0, engine=EngineBlock(answers_per_part=2 * N)),
    )  # fmt: skip
    return read_table(target, RESPONSES).to_pylist()


def test_one_engine_answers_everything_that_waits_for_its_policy(folder: Path) -> None:
    others = with_others(folder)
    sample_both(folder, "requests.parquet", "journal", [others])
    assert len(Engine.asked) == 2 * COUNT
    Engine.asked, Engine.lives = [], 0
    rows = sample_both(folder, "others.parquet", "journal-of-others", [])  # starts no engine
    Engine.lives = 1000
    alone = folder / "alone"
    assert rows == sample_both(folder, "others.parquet", str(alone), [])


def test_later_plans_and_other_engines_are_left_to_their_own_job(folder: Path) -> None:
    absent = responses.Asked(folder / "absent.parquet", {"d": folder / "examples.parquet"}, folder / "x")
    sample_both(folder, "requests.parquet", "journal", [absent])
    assert len(Engine.asked) == COUNT
    others = with_others(folder)
    rows = read_table(others.requests, REQUESTS).to_pylist()
    contrast = {"recipe": rows[0]["recipe"], "strength": 0.1, "plausibility": 0.1}
    write_table(others.requests, REQUESTS, [{**row, "contrast": contrast} for row in rows], {})
    Engine.asked = []
    sample_both(folder, "requests.parquet", "journal-2", [others])
    assert len(Engine.asked) == COUNT


def test_a_table_that_another_job_samples_is_left_to_it(folder: Path) -> None:
    others = with_others(folder)
    sample_both(folder, "others.parquet", "journal-of-others", [])
    (lock,) = others.journal.rglob("*.lock")
    for part in others.journal.rglob("*.parquet"):
        part.unlink()
    Engine.asked = []
    with only_writer(lock, "these"):
        sample_both(folder, "requests.parquet", "journal", [others])
    assert len(Engine.asked) == COUNT


def test_finished_tables_are_not_sampled_again_without_their_journal(folder: Path) -> None:
    others = replace(with_others(folder), responses=folder / "done.parquet")
    (folder / "done.parquet").write_bytes(b"")
    sample_both(folder, "requests.parquet", "journal", [others])
    assert len(Engine.asked) == COUNT
    assert not others.journal.exists()
    later = (folder / "done.parquet").stat().st_mtime + 10
    os.utime(others.requests, (later, later))  # planned anew
    Engine.asked = []
    sample_both(folder, "requests.parquet", "journal-2", [others])
    assert len(Engine.asked) == 2 * COUNT


def test_a_job_without_questions_loads_no_engine() -> None:
    code = "import sys, perceptune.stages.sampling.responses; print(sorted({'torch', 'vllm', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
