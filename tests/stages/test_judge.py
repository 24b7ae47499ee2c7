"""The judge stage with a model of the config and with vLLM's server as the endpoint agree."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import BenchmarkBlock, ComparisonBlock, EngineBlock, JudgeBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.compared import COMPARED
from perceptune.contracts.tables.comparisons import COMPARISONS
from perceptune.contracts.tables.io import read_lineage, read_table
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.engines.vllm.requests import Answer, Question
from perceptune.stages.evaluation import asking, judge_answers, judge_comparison, measure_comparison

from tests.faults.judge_server import BLOCK, judged, write_answers

ROOT = Path(__file__).parents[2]
TINY = ROOT / "resources/tiny-llava/model"
WEIGHTS = "0123456789abcdef"
COUNT = 6


def model(**engine: Any) -> ModelBlock:
    block = EngineBlock(enforce_eager=True, **engine)
    return ModelBlock(path=str(TINY), family="llava", dtype="float32", max_model_len=512, engine=block)


def run_here(folder: Path, block: BenchmarkBlock, engine: dict[str, Any], **settings: Any) -> pl.DataFrame:
    """Verdicts of the tiny model on the answers in `folder`."""
    judge_answers.run(
        name="tiny", judge=JudgeBlock(model="tiny", **settings), benchmark="b", block=block, rewards=folder / "rewards.parquet",
        examples=folder / "examples.parquet", verdicts=folder / "here.parquet", kept=folder / "kept-here", model=model(**engine),
        weights=WEIGHTS,
    )  # fmt: skip
    return pl.DataFrame(pl.from_arrow(read_table(folder / "here.parquet", VERDICTS)))


class Engine:
    """Answers with `says` of the text that it receives."""

    says: Callable[[str], Answer]
    asked: list[Question]

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None: ...

    def prepared(self, question: Question) -> Question:
        if (
            "An answer 3" in question.messages[0]["content"][0]["text"]
            and "long" in question.messages[0]["content"][0]["text"]
        ):
            raise ValueError("prompt of 600 tokens and 1024 new ones exceed max_model_len 512")
        return question

    def answers(self, questions: Iterable[tuple[str, Question]]) -> Iterator[tuple[str, list[Answer]]]:
        """Four questions at a time."""
        asked = iter(questions)
        while batch := list(itertools.islice(asked, 4)):
            Engine.asked += [question for _, question in batch]
            for name, question in batch:
                yield name, [Engine.says(question.messages[0]["content"][0]["text"])]


def answer(text: str, ended: str = "stop") -> Answer:
    return Answer(text, [1], [-1.0], ended, 5)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six answers, and an engine that rates each with 4."""
    monkeypatch.setattr(asking, "start", Engine)
    Engine.asked, Engine.says = [], lambda text: answer("Rating: 4")
    write_answers(tmp_path, COUNT)
    return tmp_path


def test_a_model_of_the_config_answers_greedily_without_image(folder: Path) -> None:
    table = run_here(folder, BLOCK, {})
    questions = list(Engine.asked)
    assert len(questions) == COUNT
    assert {(q.temperature, q.n, len(q.images), q.max_tokens) for q in questions} == {(0.0, 1, 0, 1024)}
    assert all(q.escaped for q in questions)  # no answer can end the judge's turn
    assert questions[0].messages[0]["role"] == "user"
    assert "An answer 0" in questions[0].messages[0]["content"][0]["text"]
    assert set(table["text"]) == {"Rating: 4"}
    assert set(table["model"]) == {"tiny 0123456789ab"}
    assert read_lineage(folder / "here.parquet")["parameters"]["weights"] == WEIGHTS
    run_here(folder, BLOCK, {"max_num_seqs": 3})
    assert len(Engine.asked) == COUNT  # all verdicts are stored, independent of the engine's settings


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            answer("The answer", "length"),
            "`tiny` cut its verdict off after 1024 tokens\nhint: key `judges.tiny.max_tokens`",
        ),
        (answer(" \n"), "`tiny` gave an empty verdict"),
    ],
)
def test_an_invalid_verdict_stops_the_stage_and_the_others_are_kept(folder: Path, bad: Answer, said: str) -> None:
    Engine.says = lambda text: bad if "An answer 2" in text else answer("Rating: 4")
    with pytest.raises(UserError) as caught:
        run_here(folder, BLOCK, {})
    assert "judge `tiny`, example `2`: " in str(caught.value)
    assert said in str(caught.value)
    assert "3 of 6 verdicts are stored" in str(caught.value)
    Engine.says = lambda text: answer("Rating: 2")
    table = run_here(folder, BLOCK, {})
    assert table["text"].to_list() == [f"Rating: {n}" for n in (4, 4, 2, 4, 2, 2)]


def test_a_too_long_prompt_stops_the_stage(folder: Path) -> None:
    write_answers(folder, COUNT, text="A long answer, An answer")
    with pytest.raises(UserError, match=r"judge `tiny`, example `3`: prompt of 600 tokens and 1024 new ones exceed"):
        run_here(folder, BLOCK, {})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of vLLM's OpenAI server with the tiny model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(TINY), "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "512", "--enforce-eager",
    ]  # fmt: skip
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 300
        while not _is_up(port):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _is_up(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


def short_prompt(folder: Path) -> BenchmarkBlock:
    """Text that the tiny model can read: it knows 759 tokens."""
    (folder / "prompt.txt").write_text("{contents} {question} {reference} how many circles are there?{answer}")
    return BLOCK.model_copy(update={"judge_prompt": str(folder / "prompt.txt")})


@pytest.mark.slow
def test_vllms_own_server_says_what_the_model_says_here(server: str, tmp_path: Path) -> None:
    write_answers(tmp_path, 8, text="")
    block = short_prompt(tmp_path)
    there = judged(tmp_path, server, block, model="tiny", max_tokens=32, concurrency=4)
    command = [sys.executable, "-m", "tests.stages.test_judge", str(tmp_path), json.dumps({"max_tokens": 32})]
    subprocess.run(command, cwd=ROOT, check=True)
    here = read_table(tmp_path / "here.parquet", VERDICTS).to_pylist()
    assert [row["text"] for row in here] == there["text"].to_list()
    assert set(there["model"]) == {"tiny"}
    assert len(set(there["text"])) > 1  # otherwise equality would prove little


@pytest.mark.slow
def test_vllms_own_server_refuses_what_it_cannot_do(server: str, tmp_path: Path) -> None:
    write_answers(tmp_path, 2, text="very long " * 200)
    with pytest.raises(UserError, match=r"answered 400: `.*512"):
        judged(tmp_path, server, short_prompt(tmp_path), model="tiny")
    with pytest.raises(UserError, match=r"answered 404: `The model `tinny` does not exist"):
        judged(tmp_path, server, short_prompt(tmp_path), model="tinny")
    write_answers(tmp_path, 2, text="")
    with pytest.raises(UserError, match=r"cut its verdict off after 1 tokens"):
        judged(tmp_path, server, short_prompt(tmp_path), model="tiny", max_tokens=1)


@pytest.mark.slow
def test_vllms_own_server_compares_two_answers(server: str, tmp_path: Path) -> None:
    """The tiny model cannot say A or B: its verdicts cannot be read, and none is lost."""
    for policy, text in (("one", "red"), ("other", "a blue")):
        (tmp_path / policy).mkdir()
        write_answers(tmp_path / policy, 4, text=text)
    (tmp_path / "prompt.txt").write_text("{question} {a} {b} how many circles are there?")
    config = ComparisonBlock(
        policies=("one", "other"), benchmark="b", judge="tiny", orders="both", prompt=str(tmp_path / "prompt.txt"), resamples=99
    )  # fmt: skip

    def compare(judge: str, **settings: Any) -> list[dict[str, Any]]:
        block = JudgeBlock(model="tiny", url=server, concurrency=4, retries=0, **settings)
        judge_comparison.run(
            name=judge, judge=block, config=config, block=BLOCK, examples=tmp_path / "one/examples.parquet",
            rewards=(tmp_path / "one/rewards.parquet", tmp_path / "other/rewards.parquet"),
            compared=tmp_path / f"{judge}.parquet", kept=tmp_path / f"kept-{judge}",
        )  # fmt: skip
        return read_table(tmp_path / f"{judge}.parquet", COMPARED).to_pylist()

    rows = compare("tiny")
    assert [row["model"] for row in rows] == ["tiny"] * 8
    assert len({row["key"] for row in rows}) == 8  # the orders are different requests
    assert compare("again") == rows  # greedy
    stored = {file.stem for file in (tmp_path / "kept-tiny").rglob("*.json")}
    assert stored == {row["key"] for row in rows}
    measure_comparison.run(
        comparison="c", config=config, compared=tmp_path / "tiny.parquet", comparisons=tmp_path / "c.parquet"
    )
    found = {row["metric"]: row for row in read_table(tmp_path / "c.parquet", COMPARISONS).to_pylist()}
    unread = sum(row["outcome"] is None for row in rows)
    assert (found["win_rate"]["n"], found["win_rate"]["n_failed"], found["win_rate"]["of"]) == (8, unread, 8 - unread)
    assert found["win_rate"]["judge"] == "tiny: tiny"


if __name__ == "__main__":  # one vLLM engine per process
    run_here(Path(sys.argv[1]), short_prompt(Path(sys.argv[1])), {}, **json.loads(sys.argv[2]))
