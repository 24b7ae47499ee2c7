"""Samples one policy's answers to one shard of the requests."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa

from perceptune.contracts.config import UNCOMPUTED, ModelBlock
from perceptune.contracts.plugins import module_of
from perceptune.contracts.progress import Progress, Waiting, tell
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.provenance.digests import sha256_of_file, sha256_of_json
from perceptune.contracts.provenance.lineage import lineage, versions
from perceptune.contracts.tables.io import read_batches, table_writer
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.vllm.requests import Answer, Contrast, Question
from perceptune.runtime.ahead import Results, Workers, workers_of
from perceptune.runtime.imports import large_imports
from perceptune.runtime.journal import FINGERPRINT, Journal, key_of
from perceptune.runtime.locks import only_writer, writer_if_free
from perceptune.stages.data.example_images import IllustratedExamples
from perceptune.stages.data.examples import Examples

Asking = tuple[Path, dict[str, Any]]
"""A request with its key, and its table of examples."""

if TYPE_CHECKING:
    from perceptune.engines.vllm.preparation import Prepared
    from perceptune.engines.vllm.sampler import Sampler

    Outcome = tuple[str, Prepared | str]
    """The key of a request, and the question or the reason why it cannot be sampled."""

DRAWING = ("n", "temperature", "top_p", "top_k", "max_tokens")
IDENTITY = ("key", "request_id", "example_id", "view")
ROWS = 1024
"""Requests in memory at once."""
PRELOADED = ("perceptune.engines.vllm.preparation",)
"""What these processes have in common."""
COMMIT_SECONDS = 30.0
"""Longest time between an answer and its commit, while others are finished."""


@dataclass(frozen=True)
class Asked:
    """A table of requests to a policy, with its inputs and outputs."""

    requests: Path
    examples: dict[str, Path]
    journal: Path
    """Folder of finished answers."""
    responses: Path | None = None
    """The finished table of an earlier run, if it exists; the journal is then gone."""

    @property
    def waits(self) -> bool:
        """Whether its requests exist, and no newer table of answers."""
        if not self.requests.exists() or not all(path.exists() for path in self.examples.values()):
            return False
        done = self.responses is not None and self.responses.exists()
        return not (done and self.responses.stat().st_mtime >= self.requests.stat().st_mtime)  # type: ignore[union-attr]


def run(
    *,
    requests: Path,
    examples: dict[str, Path],
    responses: Path,
    journal: Path,
    model: ModelBlock,
    weights: str,
    adapter: Path | None,
    shard: int,
    shards: int,
    finished: Path | None = None,
    beside: Sequence[Asked] = (),
    halvings: int = 0,
) -> None:
    """Writes `responses`: n rows for every request of the shard (0-based), in request order.

    Answers are committed to the folder `journal` as they finish, in any order, and are never sampled
    again; nor are the unchanged requests of `finished`, the complete table of an earlier run. Since
    starting an engine is slow, it then also samples the tables in `beside` that wait for the same
    policy, into their own journals, so that their jobs need no engine. `weights` is the digest of the
    model's files. Each of the `halvings` halves the engine's batch size. A request that cannot be
    sampled has n rows with its reason.
    """
    adapted = None if adapter is None else sha256_of_file(adapter / "adapter_model.safetensors")
    policy = sha256_of_json([weights, adapted])
    own = _Shard(Asked(requests, examples, journal, finished), model, policy, shard, shards)
    reasons: dict[str, str] = {}
    with only_writer(own.lock, "this shard"):
        if (waiting := own.waiting()).any():
            merged = own.book.folder / f"merged-{own.name}"
            with ExitStack() as stack:
                # started first: processes import their modules while the engine starts
                several = stack.enter_context(_processes(model, own.most_images))
                sampler = stack.enter_context(start(model, adapter, own.most_images, merged, halvings, own.contrastive))
                workers = several or Workers(lambda: _Prepare(sampler.prepared), 0)
                _ask(own, waiting, sampler, workers, reasons)
                for other in beside:
                    _ask_beside(other, own, sampler, workers)
        inputs = {"requests": requests, **{f"examples {k}": v for k, v in examples.items()}}
        if adapter is not None:
            inputs["adapter"] = adapter / "adapter_model.safetensors"
        parameters = {"model": model.model_dump(mode="json"), "weights": weights, "shard": shard, "shards": shards}
        parameters[FINGERPRINT] = own.book.fingerprint
        with table_writer(responses, RESPONSES) as table:
            for rows in own.in_order(reasons):
                table.write(rows)
            table.lineage = lineage("sampling.responses", parameters, inputs, own.plugins)


def start(model: ModelBlock, adapter: Path | None, *arguments: Any) -> Sampler:
    """A running engine.

    Imported lazily: a job whose answers are all in the journal needs none.
    """
    tell(f"starting vLLM with {adapter or model.path} (takes about a minute)")
    with Waiting("importing vLLM"), large_imports():
        from perceptune.engines.vllm.sampler import Sampler
    return Sampler(model, adapter, *arguments)


def _processes(model: ModelBlock, most_images: int) -> AbstractContextManager[Workers[Asking, Outcome] | None]:
    """Processes that prepare questions, if the engine leaves cores for them."""
    count = workers_of(model)
    return Workers(partial(_preparing, model, most_images), count, PRELOADED) if count else nullcontext()


def _preparing(model: ModelBlock, most_images: int) -> _Prepare:
    """In a process without an engine."""
    from perceptune.engines.vllm.preparation import Preparer

    return _Prepare(Preparer(model, most_images))


class _Prepare:
    """Opens the images of a request, applies its views, and prepares it for the engine."""

    def __init__(self, prepared: Callable[[Question], Prepared]) -> None:
        self._prepared = prepared
        self._known: dict[Path, IllustratedExamples] = {}

    def __call__(self, asked: Asking) -> Outcome:
        """The key of the request and the question, or the reason why it cannot be sampled."""
        path, row = asked
        if path not in self._known:
            self._known[path] = IllustratedExamples(path)
        try:
            return row["key"], self._prepared(_question(row, self._known[path]))
        except ValueError as error:
            return row["key"], str(error)


def _question(row: dict[str, Any], known: IllustratedExamples) -> Question:
    opened = known.images(row["example_id"])
    contrast = row["contrast"] and Contrast(
        shown(Recipe.read(row["contrast"]["recipe"]), opened),
        row["contrast"]["strength"],
        row["contrast"]["plausibility"],
    )
    return Question(
        messages=row["messages"],
        images=shown(Recipe.read(row["recipe"]), opened),
        seed=row["seed"],  # the same for all policies: compared policies share random numbers
        contrast=contrast,
        **{key: row[key] for key in DRAWING},
    )


class _Shard:
    """One shard of a table of requests. Only their keys stay in memory."""

    def __init__(self, table: Asked, model: ModelBlock, policy: str, shard: int, shards: int) -> None:
        """`policy` identifies the weights including the adapter."""
        self.requests, self.examples = table.requests, table.examples
        self.model, self.policy, self.shard, self.shards = model, policy, shard, shards
        self.most_images = 0
        ops: set[str] = set()
        keys, counts, contrasts = [], [], []
        for rows in _keyed(table):
            keys.append(pl.Series([row["key"] for row in rows], dtype=pl.String))
            counts.append(np.array([row["n"] for row in rows], dtype=np.int64))
            contrasts.append(np.array([row["contrast"] is not None for row in rows], dtype=bool))
            recipes = [row["recipe"] for row in rows] + [row["contrast"]["recipe"] for row in rows if row["contrast"]]
            ops |= {Recipe.read(text).op for text in set(recipes)}
            self.most_images = max(self.most_images, *map(_images_asked, rows))
        self._keys = pl.concat(keys) if keys else pl.Series([], dtype=pl.String)
        self._counts, self._contrasts = _joined(counts, np.int64), _joined(contrasts, bool)
        self._mine = _parts(self._counts, model.engine.answers_per_part) % shards == shard
        self.plugins = [module_of("family", model.family), *(module_of("view", op) for op in sorted(ops))]
        self.book = Journal(table.journal, _fingerprint(model, policy, self.plugins), table.responses)
        self.name = f"{shard + 1}-of-{shards}"
        self.lock = self.book.folder / f"{self.name}.lock"

    @property
    def contrastive(self) -> bool:
        """Whether a request is decoded with contrast."""
        return bool(self._contrasts.any())

    @property
    def answers(self) -> int:
        """The number of answers to its requests."""
        return int(self._counts[self._mine].sum())

    def waiting(self) -> np.ndarray:
        """For each request of the table, whether it is one of this shard without an answer."""
        return self._mine & ~self._keys.is_in(self.book.committed().implode()).to_numpy()

    def asked(self, waiting: np.ndarray, contrast: bool) -> Iterator[Asking]:
        """The waiting requests with or without contrast, with their tables of examples."""
        wanted = waiting & (self._contrasts == contrast)
        for start, rows in self._batches(REQUESTS.columns):
            for place in np.flatnonzero(wanted[start : start + rows.num_rows]):
                (row,) = rows.slice(place, 1).to_pylist()
                yield self.examples[row["dataset"]], {**row, "key": self._keys[start + int(place)]}

    def missing(self, waiting: np.ndarray) -> int:
        """The number of answers to waiting requests."""
        return int(self._counts[waiting].sum())

    def in_order(self, reasons: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        """Rows of the `responses` table, n per request; rows without an answer have their reason."""
        self.book.committed()
        for start, rows in self._batches(["request_id", "example_id", "view", "n"]):
            mine = self._mine[start : start + rows.num_rows]
            keys = self._keys[start : start + rows.num_rows]
            frame = pl.DataFrame(pl.from_arrow(rows)).with_columns(key=keys).filter(mine)
            frame = frame.with_columns(sample_index=pl.int_ranges("n", dtype=pl.Int32)).explode("sample_index")
            found = self.book.answers(keys.filter(mine)).drop("request_id", "example_id", "view")
            joined = frame.join(found, ["key", "sample_index"], "left", validate="1:1", maintain_order="left")
            reason = pl.col("request_id").replace_strict(reasons, default=None, return_dtype=pl.String)
            named = joined.with_columns(reason=pl.when(pl.col("text").is_null()).then(reason))
            yield named.select(RESPONSES.columns)

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        start = 0
        for rows in read_batches(self.requests, REQUESTS, columns, ROWS):
            yield start, rows
            start += rows.num_rows


def _joined(parts: Sequence[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _ask(
    shard: _Shard,
    waiting: np.ndarray,
    sampler: Sampler,
    workers: Workers[Asking, Outcome],
    reasons: dict[str, str],
) -> None:
    """Samples the waiting requests. The reasons of those that cannot be sampled are added to `reasons`."""
    total = shard.answers
    with (
        Progress("sampling", total, "answers", done=total - shard.missing(waiting)) as progress,
        _Commits(shard.book, shard.model.engine.answers_per_part) as commits,
    ):
        for contrast in (False, True):
            running: dict[str, dict[str, Any]] = {}
            results = workers.results(_noted(shard.asked(waiting, contrast), running))

            def questions(
                results: Results[Asking, Outcome] = results, running: dict[str, Any] = running
            ) -> Iterator[Any]:
                for key, prepared in results:
                    if isinstance(prepared, str):
                        reasons[running.pop(key)["request_id"]] = prepared
                    else:
                        yield key, prepared

            for key, answers in sampler.answers(questions(), results.ready):
                request = running.pop(key)
                progress.advance(len(answers))
                if all(math.isfinite(x) for answer in answers for x in answer.logprobs):
                    commits.add([{**request, **row} for row in _rows(answers)])
                else:
                    reasons[request["request_id"]] = "the model's log-probs are NaN or infinite"


def _noted(asked: Iterator[Asking], running: dict[str, dict[str, Any]]) -> Iterator[Asking]:
    """The same; what identifies each request is kept in `running` by key."""
    for path, row in asked:
        running[row["key"]] = {name: row[name] for name in IDENTITY}
        yield path, row


class _Commits:
    """Collects finished answers, and commits them when they are many or have waited for long."""

    def __init__(self, book: Journal, most: int) -> None:
        self._book, self._most = book, most
        self._rows: list[dict[str, Any]] = []
        self._since = time.monotonic()

    def __enter__(self) -> _Commits:
        return self

    def __exit__(self, *_: object) -> None:
        self._commit()

    def add(self, rows: list[dict[str, Any]]) -> None:
        """The answers of one request."""
        self._rows += rows
        if len(self._rows) >= self._most or time.monotonic() - self._since > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        self._book.commit(self._rows)
        self._rows, self._since = [], time.monotonic()


def _ask_beside(other: Asked, own: _Shard, sampler: Sampler, workers: Workers[Asking, Outcome]) -> None:
    """Samples the same shard of another table if it is ready, free, and suits the engine."""
    if not other.waits:
        return
    shard = _Shard(other, own.model, own.policy, own.shard, own.shards)
    if shard.contrastive != own.contrastive or shard.most_images > own.most_images:
        return
    with writer_if_free(shard.lock) as free:
        if free and (waiting := shard.waiting()).any():
            print(f"also sampling `{other.requests}`", file=sys.stderr, flush=True)
            _ask(shard, waiting, sampler, workers, {})


def _fingerprint(model: ModelBlock, policy: str, plugins: list[str]) -> str:
    """Identifies what determines the answers: a journal with other weights, settings, code or
    packages is not continued.
    """
    settings = model.model_dump(mode="json", exclude=UNCOMPUTED)
    return sha256_of_json([policy, settings, code_digest("perceptune.stages.sampling.responses", *plugins), versions()])


def _keyed(table: Asked) -> Iterator[list[dict[str, Any]]]:
    """Batches of requests, each with a key that identifies it and its images."""
    of_dataset = {
        name: pl.DataFrame(pl.from_arrow(Examples(path).table(["example_id", "image_sha256"])))
        for name, path in table.examples.items()
    }
    digests = pl.concat(frame.with_columns(dataset=pl.lit(name)) for name, frame in of_dataset.items())
    for rows in read_batches(table.requests, REQUESTS, REQUESTS.columns, ROWS):
        asked = pl.DataFrame(pl.from_arrow(rows.select(["dataset", "example_id"])))
        images = asked.join(digests, ["dataset", "example_id"], "left", maintain_order="left")["image_sha256"].to_list()
        yield [{**row, "key": key_of(row, known)} for row, known in zip(rows.to_pylist(), images, strict=True)]


def _parts(counts: np.ndarray, answers: int) -> np.ndarray:
    """Splits requests into consecutive parts of about `answers` answers, which shards take in turn:
    the number of each request's part, from its number of answers."""
    parts, part, room = np.zeros(len(counts), dtype=np.int64), -1, 0
    for place, count in enumerate(counts):
        if room <= 0:
            part, room = part + 1, answers
        parts[place] = part
        room -= count
    return parts


def _images_asked(row: dict[str, Any]) -> int:
    return sum(item["type"] == "image" for message in row["messages"] for item in message["content"])


def _rows(answers: Sequence[Answer]) -> Iterator[dict[str, Any]]:
    for index, answer in enumerate(answers):
        yield {
            "sample_index": index,
            "text": answer.text,
            "token_ids": answer.token_ids,
            "logprobs": answer.logprobs,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
        }
