"""A judge endpoint that misbehaves: each case ends with the right verdicts or one clear error."""

import base64
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from perceptune.contracts.config import JudgeBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.tables.io import read_lineage, read_table, write_table
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.engines import judging
from perceptune.stages.evaluation import judge_answers

from .judge_server import BLOCK, MODEL, judged, serving, verdict_on, write_answers

COUNT = 5
KEY = "sk-proj-AbCdEf0123456789/+xyz"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five responses; short waits."""
    monkeypatch.setattr(judging, "FIRST_WAIT", 0.02)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-this-endpoint")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-not-for-anyone")
    write_answers(tmp_path, COUNT)
    return tmp_path


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((folder / "kept").rglob("*.json"))]


def assert_right(table: pl.DataFrame, folder: Path, count: int = COUNT) -> None:
    """Every response has the verdict for its own prompt."""
    assert table["example_id"].to_list() == [str(n) for n in range(count)]
    assert table["model"].to_list() == [MODEL] * count
    assert table["reason"].null_count() == count
    by_key = {file.stem: json.loads(file.read_text()) for file in (folder / "kept").rglob("*.json")}
    for row in table.iter_rows(named=True):
        asked = by_key[row["key"]]["asked"]
        assert f"An answer {row['example_id']}\n" in asked["messages"][0]["content"]
        assert row["text"] == verdict_on(asked)


def without_key(text: str) -> bool:
    return KEY not in text and base64.b64encode(KEY.encode()).decode() not in text and KEY[:20] not in text


def test_a_working_judge_gets_one_request_per_answer(folder: Path) -> None:
    with serving() as server:
        table = judged(folder, server.url, concurrency=3)
        assert_right(table, folder)
        assert len(server.asked) == COUNT
        assert {(body["model"], body["temperature"], body["seed"]) for body in server.asked} == {("stub", 0, 0)}
        assert {body["max_tokens"] for body in server.asked} == {1024}
        again = judged(folder, server.url)
        assert again.equals(table)
        assert len(server.asked) == COUNT  # no request was repeated
        sent = json.dumps(server.headers)
        assert "sk-not-for" not in sent  # keys of other endpoints are not sent
    assert read_lineage(folder / "verdicts.parquet")["parameters"]["judge"]["model"] == "stub"


PASSING = [
    "429", "429 after 1", "429 after a date", "500", "503", "garbage", "html", "other json", "null", "cut json", "hang up", "slow",
    "drip", "reset", "empty", "no text",
]  # fmt: skip


def patience(fault: str) -> float:
    """Timeout in seconds: short if it is tested, long if a busy machine may be slow."""
    return 1.0 if fault in ("slow", "drip") else 30.0


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_got_over(folder: Path, fault: str) -> None:
    with serving(lambda number: fault if number in (1, 4) else "fine") as server:
        assert_right(judged(folder, server.url, timeout=patience(fault)), folder)
        assert len(server.asked) == COUNT + 2


@pytest.mark.parametrize(
    ("fault", "expected", "requests"),
    [
        ("429", "answered 429: `slow down`, 3 times", 3),
        ("429 after a day", "answered 429: `come back tomorrow` and asks to wait for 86400 s", 1),
        ("429 for good", "answered 429: `You exceeded your current quota`", 1),
        ("500", "answered 500: `out of order`, 3 times", 3),
        ("503", "answered 503: `<html>unavailable</html>`, 3 times", 3),
        ("garbage", "answered with no chat completion: `\\x00", 3),
        ("html", "answered with no chat completion: `<html><body>Welcome</body></html>`, 3 times", 3),
        ("other json", 'answered with no chat completion: `{"choices": []}`, 3 times', 3),
        ("cut json", "answered with no chat completion: `{", 3),
        ("hang up", "could not be reached", 3),
        ("slow", "gave no answer within 1 s, 3 times", 3),
        ("drip", "gave no answer within 1 s, 3 times", 3),
        ("reset", "could not be reached", 3),
        ("cut off", "cut its verdict off after 1024 tokens\nhint: key `judges.stub.max_tokens` allows longer ones", 1),
        ("filtered", "withheld its verdict by a content filter", 1),
        ("empty", "gave an empty verdict, 3 times", 3),
        ("only reasoning", "gave an empty verdict, 3 times", 3),
        ("endless", "gave no verdict: its reasoning never ends, 3 times", 3),
        ("400", "answered 400: `This model's maximum context length is 10 tokens`", 1),
        (
            "401",
            "answered 401: `Incorrect API key provided: Bearer none`\nhint: key `judges.stub.key` names the environment",
            1,
        ),
        ("403", "answered 403: `not allowed`", 1),
        ("404", "answered 404: `Not Found`\nhint: key `judges.stub.url` is the address before `/chat/completions`", 1),
    ],
)
def test_a_persistent_fault_stops_with_one_error_and_keeps_verdicts(
    folder: Path, fault: str, expected: str, requests: int
) -> None:
    """Two verdicts arrive, then the endpoint hangs; once it recovers, only the other three are
    requested.
    """
    with serving(lambda number: "fine" if number <= 2 else fault) as server:
        with pytest.raises(UserError) as caught:
            judged(folder, server.url, timeout=patience(fault))
        message = str(caught.value)
        assert f"judge `stub`, example `2`: `{server.url}` " in message
        assert expected in message
        assert "2 of 5 verdicts are stored; rerun to request only the others" in message
        assert len(server.asked) == 2 + requests
        assert len(kept(folder)) == 2
        assert not (folder / "verdicts.parquet").exists()
        server.behave = lambda number: "fine"
        server.asked.clear()
        assert_right(judged(folder, server.url), folder)
        assert len(server.asked) == 3


def test_nobody_there(folder: Path) -> None:
    with serving() as server:
        url = server.url
    with pytest.raises(UserError, match=r"could not be reached: ConnectError: .*, 3 times"):
        judged(folder, url)


def test_answers_under_way_are_kept_when_another_one_fails(folder: Path) -> None:
    """Of four concurrent requests, one is refused immediately; the others arrive later."""
    with serving(lambda number: "403" if number == 1 else "fine") as server:
        say = server.say
        server.say = lambda body, number: (time.sleep(0.3), say(body, number))[1]
        with pytest.raises(UserError, match="answered 403"):
            judged(folder, server.url, concurrency=4)
        assert len(kept(folder)) == 3
        assert len(server.asked) == 4  # the fifth is no longer requested


@pytest.mark.timeout(300)  # less than the wait
def test_who_waits_for_another_try_does_not_hold_up_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "FIRST_WAIT", 1000)
    with (
        serving(lambda number: "500" if number == 1 else "403") as server,
        pytest.raises(UserError, match="answered 403"),
    ):
        judged(folder, server.url, concurrency=2)


def test_an_endpoint_that_asks_to_wait_is_left_alone_by_all(folder: Path) -> None:
    times: list[float] = []

    def behave(number: int) -> str:
        times.append(time.monotonic())
        return "429 after 1" if number == 1 else "fine"

    with serving(behave) as server:
        assert_right(judged(folder, server.url, concurrency=1), folder)
    assert 1 <= times[1] - times[0] < 3


def test_an_endpoint_without_seeds_gets_requests_without_seeds(folder: Path) -> None:
    with serving(lambda number: "no seed") as server:
        table = judged(folder, server.url, retries=0)
        assert_right(table, folder)
        assert ["seed" in body for body in server.asked] == [True] + [False] * COUNT


def test_equal_answers_of_all_policies_are_judged_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_answers, "PART", 2)
    rows = read_table(folder / "rewards.parquet", REWARDS).to_pylist()
    again = [{**row, "request_id": f"s{row['request_id']}", "condition": "sampled"} for row in rows]
    write_table(folder / "rewards.parquet", REWARDS, rows + again, {})
    with serving() as server:
        table = judged(folder, server.url)
        assert table.height == 2 * COUNT
        assert len(server.asked) == COUNT
    assert table["text"].to_list()[:COUNT] == table["text"].to_list()[COUNT:]


def test_other_questions_models_and_lengths_are_judged_again(folder: Path, tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("{contents} {question} {reference} {answer}? Set {braces} aside.")
    with serving() as server:
        judged(folder, server.url)
        judged(folder, server.url, model="another")
        judged(folder, server.url, max_tokens=7)
        judged(folder, server.url, BLOCK.model_copy(update={"judge_prompt": str(prompt)}))
        assert len(server.asked) == 4 * COUNT
        assert server.asked[-1]["messages"] == [
            {"role": "user", "content": "Cat, Mat Question 4? Reference 4. An answer 4? Set {braces} aside."}
        ]
        judged(folder, server.url, key=None, concurrency=2, timeout=2.0)  # changes that do not affect requests
        assert len(server.asked) == 4 * COUNT


def test_a_prompt_that_leaves_something_out_is_named(folder: Path) -> None:
    (folder / "prompt.txt").write_text("{contents} {question} {reference}")
    block = BLOCK.model_copy(update={"judge_prompt": str(folder / "prompt.txt")})
    with serving() as server, pytest.raises(UserError, match=r"has no `\{answer\}`, expected `\{contents\}`, "):
        judged(folder, server.url, block)


def test_an_answer_that_is_missing_is_not_judged(folder: Path) -> None:
    rows = read_table(folder / "rewards.parquet", REWARDS).to_pylist()
    rows[1] |= {"text": None, "answer": None, "reward": None, "components": [], "reason": "too long"}
    write_table(folder / "rewards.parquet", REWARDS, rows, {})
    with serving() as server:
        table = judged(folder, server.url)
        assert len(server.asked) == COUNT - 1
    assert table.row(1, named=True)["reason"] == "no answer text"
    assert table["text"].null_count() == 1


def test_a_damaged_verdict_is_requested_again(folder: Path) -> None:
    with serving() as server:
        table = judged(folder, server.url)
        next((folder / "kept").rglob("*.json")).write_text('{"text": "Rat')
        assert judged(folder, server.url).equals(table)
        assert len(server.asked) == COUNT + 1


SETTINGS = {"model": "stub", "retries": 2}


def started(folder: Path, url: str, verdicts: str, **settings: Any) -> subprocess.Popen[bytes]:
    given = json.dumps({**SETTINGS, "url": url, **settings})
    command = [sys.executable, "-m", "tests.faults.judge_server", str(folder), given, verdicts]
    return subprocess.Popen(command, cwd=ROOT)


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(folder: Path) -> None:
    write_answers(folder, 12)
    with serving() as server:
        server.pause = 0.15
        process = started(folder, server.url, "verdicts.parquet", concurrency=1)
        deadline = time.monotonic() + 60
        while server.told < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        there = len(kept(folder))
        assert 3 <= there < 12
        server.pause = 0
        before = len(server.asked)
        assert_right(judged(folder, server.url), folder, 12)
        assert len(server.asked) - before == 12 - there


@pytest.mark.slow
def test_two_processes_at_once_end_with_the_same_verdicts(folder: Path) -> None:
    """Also for a judge that answers differently each time: the first verdict counts."""
    write_answers(folder, 12)
    with serving() as server:
        server.pause = 0.05
        server.say = lambda body, number: f"Rating: {number % 7} in request {number}"
        processes = [started(folder, server.url, f"{name}.parquet", concurrency=2) for name in ("one", "two")]
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
        assert len(server.asked) <= 2 * 12
    one, two = (read_table(folder / f"{name}.parquet", VERDICTS) for name in ("one", "two"))
    assert one.equals(two)
    assert one["text"].null_count == 0
    assert len(kept(folder)) == 12


def test_a_key_is_sent_and_written_nowhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STUB_KEY", f"{KEY}\n")  # not with `$(cat file)`, but with a careless export
    with serving(lambda number: ["401", "fine", "500", "echo in verdict"][min(number, 4) - 1]) as server:
        with pytest.raises(UserError) as caught:
            judged(folder, server.url, key="STUB_KEY")
        assert "Incorrect API key provided: Bearer <key>" in str(caught.value)
        assert "environment variable `STUB_KEY` holds the key that was sent" in str(caught.value)
        table = judged(folder, server.url, key="STUB_KEY")
        assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    assert table["text"].to_list()[1] == "Rating: 4 Bearer <key>"
    captured = capfd.readouterr()
    assert "retrying in" in captured.err
    assert without_key(str(caught.value) + captured.out + captured.err)
    for file in folder.rglob("*"):
        if file.is_file():
            assert without_key(file.read_bytes().decode(errors="replace")), file
    assert without_key(table.write_json())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "environment variable `STUB_KEY` is not set, expected the key of"),
        ("", "is empty or contains whitespace or non-ASCII characters"),
        ("sk-two\nlines", "is empty or contains whitespace or non-ASCII characters"),
        ("sk-schlüssel", "is empty or contains whitespace or non-ASCII characters"),
    ],
)
def test_a_key_that_cannot_be_sent_is_not_shown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, value: str | None, expected: str
) -> None:
    monkeypatch.delenv("STUB_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("STUB_KEY", value)
    with serving() as server, pytest.raises(UserError) as caught:
        judged(folder, server.url, key="STUB_KEY")
    assert expected in str(caught.value)
    assert not server.asked
    assert not value or value not in str(caught.value)


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match="url"):
        JudgeBlock(model="stub", url="localhost:8000/v1")


def test_the_judges_own_reasoning_is_no_verdict(folder: Path) -> None:
    with serving() as server:
        server.say = lambda body, number: "<think>Rating: 0?</think>\nRating: 5"
        table = judged(folder, server.url)
    assert set(table["text"]) == {"Rating: 5"}
    replies = {json.loads(file.read_text())["text"] for file in (folder / "kept").rglob("*.json")}
    assert replies == {"<think>Rating: 0?</think>\nRating: 5"}
