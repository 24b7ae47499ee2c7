"""The answers of one policy to one shard of its questions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.errors import UserError, joined_mistakes
from perceptune.contracts.lineage import lineage
from perceptune.contracts.tables import read_table, write_table
from perceptune.core.images import open_image
from perceptune.core.views import apply_view
from perceptune.engines.sampling import Answer, Question, Sampler


def run(
    *,
    requests: Path,
    examples: dict[str, Path],
    responses: Path,
    model: ModelBlock,
    adapter: Path | None,
    shard: int,
    shards: int,
) -> None:
    """Writes `responses`: n rows for every request of the shard (0-based), in the order of the requests.

    A request that cannot be asked has n rows with its reason; `UserError` when that is so for all of them.
    """
    asked = read_table(requests, "requests").to_pylist()[shard::shards]
    images = {
        (name, row["example_id"]): row["images"]
        for name, path in examples.items()
        for row in read_table(path, "examples").to_pylist()
    }
    reasons: dict[str, str] = {}
    answers: dict[str, list[Answer]] = {}
    with Sampler(model, adapter, max((len(i) for i in images.values()), default=1)) as sampler:
        questions = _questions(asked, images, sampler, reasons)
        bar = tqdm(total=sum(row["n"] for row in asked), desc="sampling", unit=" answers", mininterval=5)
        for request_id, given in sampler.answers(questions):
            answers[request_id] = given
            bar.update(len(given))
        bar.close()
    if asked and not answers:
        listed = [f"request `{request}`: {reason}" for request, reason in reasons.items()]
        raise UserError("no request could be asked\n  " + joined_mistakes(listed))
    rows = [row for request in asked for row in _rows(request, answers, reasons)]
    inputs = {"requests": requests, **{f"examples {k}": v for k, v in examples.items()}}
    if adapter is not None:
        inputs["adapter"] = adapter / "adapter_model.safetensors"
    parameters = {"model": model.model_dump(mode="json"), "shard": shard, "shards": shards}
    write_table(responses, "responses", rows, lineage("responses", parameters, inputs))


def _questions(
    asked: list[dict[str, Any]], images: dict[tuple[str, str], Any], sampler: Sampler, reasons: dict[str, str]
) -> Iterator[tuple[str, Question]]:
    """The questions that can be asked; why the others cannot goes into `reasons`."""
    for row in asked:
        try:
            opened = [open_image(image) for image in images[row["dataset"], row["example_id"]]]
        except ValueError as error:
            reasons[row["request_id"]] = str(error)
            continue
        question = Question(
            messages=row["messages"],
            images=apply_view(row["view"], opened),
            **{key: row[key] for key in ("n", "temperature", "top_p", "top_k", "max_tokens", "seed")},
        )
        refusal = sampler.refusal(question)
        if refusal is None:
            yield row["request_id"], question
        else:
            reasons[row["request_id"]] = refusal


def _rows(
    request: dict[str, Any], answers: dict[str, list[Answer]], reasons: dict[str, str]
) -> Iterator[dict[str, Any]]:
    shared = {key: request[key] for key in ("request_id", "example_id", "view")}
    given = answers.get(request["request_id"])
    for index in range(request["n"]):
        row: dict[str, Any] = {**shared, "sample_index": index, "reason": None}
        if given is None:
            yield {**row, "reason": reasons[request["request_id"]]}
        else:
            answer = given[index]
            yield {
                **row,
                "text": answer.text,
                "token_ids": answer.token_ids,
                "logprobs": answer.logprobs,
                "finish_reason": answer.finish_reason,
                "prompt_tokens": answer.prompt_tokens,
            }
