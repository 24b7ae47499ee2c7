"""Samples one policy's answers to one shard of the requests."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from perceptune.contracts.config import UNCOMPUTED, ModelBlock
from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.plugins import module_of
from perceptune.contracts.progress import Progress
from perceptune.contracts.provenance.code import code_digest
from perceptune.contracts.provenance.digests import sha256_of_file, sha256_of_json
from perceptune.contracts.provenance.lineage import lineage, versions
from perceptune.contracts.tables.io import read_table, to_table, write_table
from perceptune.contracts.tables.requests import REQUESTS
from perceptune.contracts.tables.responses import RESPONSES
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.vllm.requests import Answer, Contrast, Question
from perceptune.runtime.journal import FINGERPRINT, Journal, key_of
from perceptune.runtime.locks import only_writer, writer_if_free
from perceptune.stages.data.example_images import IllustratedExamples

if TYPE_CHECKING:
    from perceptune.engines.vllm.sampler import Prepared, Sampler

DRAWING = ("n", "temperature", "top_p", "top_k", "max_tokens")


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

    Requests are sampled in parts that do not depend on the number of shards. Each part is committed
    to the folder `journal` when it is finished and is never sampled again; nor are the unchanged
    requests of `finished`, the complete table of an earlier run. Since starting an engine
    is slow, it then also samples the tables in `beside` that wait for the same policy, into their
    own journals, so that their jobs need no engine. `weights` is the digest of the model's files.
    Each of the `halvings` halves the engine's batch size. A request that cannot be sampled has n
    rows with its reason; raises `UserError` if that holds for all.
    """
    adapted = None if adapter is None else sha256_of_file(adapter / "adapter_model.safetensors")
    policy = sha256_of_json([weights, adapted])
    own = _Shard(Asked(requests, examples, journal, finished), model, policy, shard, shards)
    reasons: dict[str, str] = {}
    with only_writer(own.lock, "this shard"):
        if waiting := own.waiting():
            merged = own.book.folder / f"merged-{own.name}"
            with start(model, adapter, own.most_images, merged, halvings, own.contrastive) as sampler:
                _ask(own, waiting, sampler, reasons)
                for other in beside:
                    _ask_beside(other, own, sampler)
        answered = own.book.answers(row["key"] for row in own.rows)
    if own.rows and not answered.height:
        listed = [f"request `{request}`: {reason}" for request, reason in reasons.items()]
        raise UserError("no request could be sampled\n  " + joined_mistakes(listed))
    table = _in_order(own.rows, answered, reasons)
    inputs = {"requests": requests, **{f"examples {k}": v for k, v in examples.items()}}
    if adapter is not None:
        inputs["adapter"] = adapter / "adapter_model.safetensors"
    parameters = {"model": model.model_dump(mode="json"), "weights": weights, "shard": shard, "shards": shards}
    parameters[FINGERPRINT] = own.book.fingerprint
    write_table(responses, RESPONSES, table, lineage("sampling.responses", parameters, inputs, own.plugins))


def start(*arguments: Any) -> Sampler:
    """A running engine.

    Imported lazily: a job whose answers are all in the journal needs none.
    """
    from perceptune.engines.vllm.sampler import Sampler

    return Sampler(*arguments)


class _Shard:
    """One shard of a table of requests."""

    def __init__(self, table: Asked, model: ModelBlock, policy: str, shard: int, shards: int) -> None:
        """`policy` identifies the weights including the adapter."""
        self.examples = {name: IllustratedExamples(path) for name, path in table.examples.items()}
        rows = _keyed(table.requests, self.examples)
        recipes = [row["recipe"] for row in rows] + [row["contrast"]["recipe"] for row in rows if row["contrast"]]
        ops = sorted({Recipe.read(text).op for text in set(recipes)})
        self.plugins = [module_of("family", model.family), *(module_of("view", op) for op in ops)]
        self.book = Journal(table.journal, _fingerprint(model, policy, self.plugins), table.responses)
        self.name = f"{shard + 1}-of-{shards}"
        self.lock = self.book.folder / f"{self.name}.lock"
        self.most_images = max((_images_asked(row) for row in rows), default=1)
        self.contrastive = any(row["contrast"] for row in rows)
        self.model, self.policy, self.shard, self.shards = model, policy, shard, shards
        self.parts = _parts(rows, model.engine.answers_per_part)[shard::shards]
        self.rows = [row for part in self.parts for row in part]

    def waiting(self) -> list[list[dict[str, Any]]]:
        """The requests without an answer, by part."""
        committed = set(self.book.answers(row["key"] for row in self.rows)["key"])
        return [todo for part in self.parts if (todo := [row for row in part if row["key"] not in committed])]


def _ask(shard: _Shard, waiting: list[list[dict[str, Any]]], sampler: Sampler, reasons: dict[str, str]) -> None:
    total = sum(row["n"] for row in shard.rows)
    missing = sum(row["n"] for part in waiting for row in part)
    with Progress("sampling", total, "answers", done=total - missing) as progress:
        for part in waiting:
            questions = list(_questions(part, shard, sampler, reasons))
            answers = sampler.answers(questions, progress.advance)
            for request in part:
                if not all(math.isfinite(x) for answer in answers.get(request["key"], ()) for x in answer.logprobs):
                    del answers[request["key"]]
                    reasons[request["request_id"]] = "the model's log-probs are NaN or infinite"
            shard.book.commit([row for request in part for row in _rows(request, answers.get(request["key"]))])


def _ask_beside(other: Asked, own: _Shard, sampler: Sampler) -> None:
    """Samples the same shard of another table if it is ready, free, and suits the engine."""
    if not other.waits:
        return
    shard = _Shard(other, own.model, own.policy, own.shard, own.shards)
    if shard.contrastive != own.contrastive or shard.most_images > own.most_images:
        return
    with writer_if_free(shard.lock) as free:
        if free and (waiting := shard.waiting()):
            print(f"also sampling `{other.requests}`", file=sys.stderr, flush=True)
            _ask(shard, waiting, sampler, {})


def _fingerprint(model: ModelBlock, policy: str, plugins: list[str]) -> str:
    """Identifies what determines the answers: a journal with other weights, settings, code or
    packages is not continued.
    """
    settings = model.model_dump(mode="json", exclude=UNCOMPUTED)
    return sha256_of_json([policy, settings, code_digest("perceptune.stages.sampling.responses", *plugins), versions()])


def _keyed(requests: Path, examples: Mapping[str, IllustratedExamples]) -> list[dict[str, Any]]:
    """The requests, each with a key that identifies it and its images."""
    known = {name: table.rows(columns=["image_sha256"]) for name, table in examples.items()}
    return [
        {**row, "key": key_of(row, known[row["dataset"]][row["example_id"]]["image_sha256"])}
        for row in read_table(requests, REQUESTS).to_pylist()
    ]


def _parts(requests: list[dict[str, Any]], answers: int) -> list[list[dict[str, Any]]]:
    """Splits requests into consecutive parts of about `answers` answers.

    They depend on the requests alone, so the engine sees the same batches for any number of shards
    and after any interruption.
    """
    parts: list[list[dict[str, Any]]] = []
    room = 0
    for row in requests:
        if room <= 0:
            parts.append([])
            room = answers
        parts[-1].append(row)
        room -= row["n"]
    return parts


def _questions(
    part: list[dict[str, Any]], shard: _Shard, sampler: Sampler, reasons: dict[str, str]
) -> Iterator[tuple[str, Prepared]]:
    """The questions that can be sampled; the reasons of the others are added to `reasons`."""
    for name, known in shard.examples.items():
        known.fetch(row["example_id"] for row in part if row["dataset"] == name)
    for row in part:
        try:
            opened = shard.examples[row["dataset"]].images(row["example_id"])
            contrast = row["contrast"] and Contrast(
                shown(Recipe.read(row["contrast"]["recipe"]), opened),
                row["contrast"]["strength"],
                row["contrast"]["plausibility"],
            )
            question = Question(
                messages=row["messages"],
                images=shown(Recipe.read(row["recipe"]), opened),
                seed=row["seed"],  # the same for all policies: compared policies share random numbers
                contrast=contrast,
                **{key: row[key] for key in DRAWING},
            )
            yield row["key"], sampler.prepared(question)
        except ValueError as error:
            reasons[row["request_id"]] = str(error)


def _images_asked(row: dict[str, Any]) -> int:
    return sum(item["type"] == "image" for message in row["messages"] for item in message["content"])


def _rows(request: dict[str, Any], answers: list[Answer] | None) -> Iterator[dict[str, Any]]:
    shared = {key: request[key] for key in ("key", "request_id", "example_id", "view")}
    for index, answer in enumerate(answers or []):
        yield {
            **shared,
            "sample_index": index,
            "text": answer.text,
            "token_ids": answer.token_ids,
            "logprobs": answer.logprobs,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.prompt_tokens,
        }


def _in_order(requests: list[dict[str, Any]], answered: pl.DataFrame, reasons: dict[str, str]) -> pl.DataFrame:
    """n rows per request, in order; rows without an answer have their reason."""
    rows = [
        {
            **{key: row[key] for key in ("key", "request_id", "example_id", "view")},
            "sample_index": index,
            "reason": reasons.get(row["request_id"]),
        }
        for row in requests
        for index in range(row["n"])
    ]
    frame = pl.DataFrame(pl.from_arrow(to_table(RESPONSES, rows)))
    found = answered.drop("key", "example_id", "view")
    empty = [name for name in found.columns if name not in ("request_id", "sample_index")]
    joined = frame.drop(empty).join(
        found, ["request_id", "sample_index"], "left", validate="1:1", maintain_order="left"
    )
    return joined.select(RESPONSES.schema.names)
