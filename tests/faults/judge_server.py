"""A judge on the loopback interface that misbehaves on demand, and tables with responses to judge."""

import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
from perceptune.contracts.config import BenchmarkBlock, JudgeBlock
from perceptune.contracts.tables.examples import EXAMPLES
from perceptune.contracts.tables.io import read_table, write_table
from perceptune.contracts.tables.rewards import REWARDS
from perceptune.contracts.tables.verdicts import VERDICTS
from perceptune.stages.evaluation import judge_answers

MODEL = "stub-1"
KINDS = ("attribute", "adversarial", "comparison", "counting")


class Server(ThreadingHTTPServer):
    """`behave` maps a request's number, from 1, to its fate: a name in `Handler.FAULTS`, or `fine`."""

    daemon_threads = True

    def __init__(self, behave: Callable[[int], str]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.lock = behave, threading.Lock()
        self.asked: list[dict[str, Any]] = []
        """Bodies of all requests, in order."""
        self.headers: list[dict[str, str]] = []
        self.told = 0
        """Requests that were answered correctly."""
        self.pause = 0.0
        self.say: Callable[[dict[str, Any], int], str] = lambda body, number: verdict_on(body)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are expected."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(body)
            self.server.headers.append({name.lower(): value for name, value in self.headers.items()})
            number = len(self.server.asked)
        time.sleep(self.server.pause)
        fault = self.server.behave(number)
        if fault != "fine":
            self.FAULTS[fault](self)
            return
        self.send(200, completion(self.server.say(body, number)))
        with self.server.lock:
            self.server.told += 1

    def send(
        self, status: int, body: str, headers: dict[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def error(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        self.send(status, json.dumps({"error": {"message": message, "code": code}}), headers)

    def drip(self) -> None:
        """Send a byte now and then, so that each single read is in time."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(50):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.1)

    def hang_up(self) -> None:
        """Announce more bytes than are sent."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "500")
        self.end_headers()
        self.wfile.write(completion("Rating: 6")[:40].encode())
        self.close_connection = True

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def refuse_seed(self) -> None:
        if "seed" in self.server.asked[-1]:
            self.error(422, "Extra inputs are not permitted: seed")
        else:
            self.send(200, completion(verdict_on(self.server.asked[-1])))

    def echo_key(self) -> None:
        self.error(401, f"Incorrect API key provided: {self.headers['Authorization']}")

    def log_message(self, format: str, *args: object) -> None: ...

    FAULTS: ClassVar[dict[str, Callable[["Handler"], None]]] = {
        "429": lambda self: self.error(429, "slow down"),
        "429 after 1": lambda self: self.error(429, "slow down", headers={"Retry-After": "1"}),
        "429 after a date": lambda self: self.error(
            429, "slow down", headers={"Retry-After": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2))}
        ),
        "429 after a day": lambda self: self.error(429, "come back tomorrow", headers={"Retry-After": "86400"}),
        "429 for good": lambda self: self.error(429, "You exceeded your current quota", "insufficient_quota"),
        "500": lambda self: self.error(500, "out of order"),
        "503": lambda self: self.send(503, "<html>unavailable</html>", kind="text/html"),
        "garbage": lambda self: self.send(200, "\x00\xff}{"),
        "html": lambda self: self.send(200, "<html><body>Welcome</body></html>", kind="text/html"),
        "other json": lambda self: self.send(200, '{"choices": []}'),
        "null": lambda self: self.send(200, "null"),
        "cut json": lambda self: self.send(200, completion("Rating: 6")[:40]),
        "hang up": hang_up,
        "slow": lambda self: time.sleep(3),
        "drip": drip,
        "reset": reset,
        "cut off": lambda self: self.send(200, completion("The answer is", "length")),
        "filtered": lambda self: self.send(200, completion("", "content_filter")),
        "endless": lambda self: self.send(200, completion("<think>The answer is")),
        "only reasoning": lambda self: self.send(200, completion("<think>The answer is</think>\n")),
        "empty": lambda self: self.send(200, completion("")),
        "no text": lambda self: self.send(200, completion(None)),
        "400": lambda self: self.error(400, "This model's maximum context length is 10 tokens"),
        "401": echo_key,
        "403": lambda self: self.error(403, "not allowed"),
        "404": lambda self: self.send(404, '{"detail": "Not Found"}'),
        "no seed": refuse_seed,
        "echo in verdict": lambda self: self.send(200, completion(f"Rating: 4 {self.headers['Authorization']}")),
    }  # fmt: skip


def completion(text: str | None, ended: str = "stop") -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ended}
    return json.dumps({"id": "x", "object": "chat.completion", "model": MODEL, "choices": [choice]})


def verdict_on(body: dict[str, Any]) -> str:
    """A rating that depends only on the prompt."""
    return f"Fine.\nRating: {int(sha256(json.dumps(body['messages']).encode()).hexdigest(), 16) % 7}"


@contextmanager
def serving(behave: Callable[[int], str] = lambda number: "fine") -> Iterator[Server]:
    server = Server(behave)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_answers(folder: Path, count: int, text: str = "An answer") -> None:
    """Examples and scored responses of `count` questions in MMHal's format; responses are `<text>
    0` and so on.
    """
    examples, rewards = [], []
    for number in range(count):
        source = {"question_type": KINDS[number % 4], "image_content": ["Cat", "Mat"]}
        examples.append({
            "example_id": str(number), "task": "open", "question": f"Question {number}?", "images": [], "image_sha256": [],
            "image_hashes": [], "image_sizes": [], "target": f"Reference {number}.", "box": None, "split": "test", "source": json.dumps(source),
            "reason": None,
        })  # fmt: skip
        rewards.append({
            "request_id": f"r{number:02}", "example_id": str(number), "task": "open", "benchmark": "b", "condition": "greedy",
            "view": "original", "sample_index": 0, "text": f"{text} {number}",
            "answer": f"{text} {number}", "target": f"Reference {number}.", "reward": 1.0,
            "parsed": None, "components": [{"name": "answered", "value": 1.0}], "reason": None,
        })  # fmt: skip
    write_table(folder / "examples.parquet", EXAMPLES, examples, {})
    write_table(folder / "rewards.parquet", REWARDS, rewards, {})


BLOCK = BenchmarkBlock(dataset="d", protocol="mmhal", reward="mmhal", judge="stub")


def judged(folder: Path, url: str, block: BenchmarkBlock = BLOCK, **settings: Any) -> pl.DataFrame:
    """The verdicts on the responses in `folder`, by the judge at `url`."""
    run(folder, {"model": "stub", "url": url, "retries": 2, "timeout": 30.0, "concurrency": 1, **settings}, block)
    return pl.DataFrame(pl.from_arrow(read_table(folder / "verdicts.parquet", VERDICTS)))


def run(
    folder: Path, settings: dict[str, Any], block: BenchmarkBlock = BLOCK, verdicts: str = "verdicts.parquet"
) -> None:
    judge_answers.run(
        name="stub", judge=JudgeBlock(**settings), benchmark="b", block=block, rewards=folder / "rewards.parquet",
        examples=folder / "examples.parquet", verdicts=folder / verdicts, kept=folder / "kept",
    )  # fmt: skip


if __name__ == "__main__":  # python -m tests.faults.judge_server FOLDER SETTINGS VERDICTS: a process that can be killed
    import sys

    run(Path(sys.argv[1]), json.loads(sys.argv[2]), verdicts=sys.argv[3])
