"""The tokens that a method selects in a round, with their scores.

They are those of the policy at the start of the round, which are the ones of the first optimiser
step: entropies under both views are stored log-probs, so the training need not record anything, and
any finished round can be looked at. Later steps of the round select with a policy that has moved.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from perceptune.contracts.config import ModelBlock
from perceptune.contracts.files import appearing
from perceptune.contracts.plugins import load, module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import Rows, read_table, table_writer
from perceptune.contracts.tables.preferences import PREFERENCES
from perceptune.contracts.tables.selected import SELECTED
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.methods.policy_gradient import as_many_random
from perceptune.core.methods.rollout import RolloutMethod, Seen, Tokens
from perceptune.models.loading import load_processor
from perceptune.models.token_texts import token_texts

AT_ONCE = 64
"""Groups in memory."""


def run(
    *,
    preferences: Path,
    terms: Path,
    removed: Path,
    selected: Path,
    lines: Path,
    method: str,
    parameters: dict[str, Any],
    view: str,
    model: ModelBlock,
    weights: str,
) -> None:
    """Writes the `selected` table of a round, and the same rows as JSON `lines`.

    `terms` and `removed` have the behaviour policy's log-probs and entropies of the groups in
    `preferences`, under the training view `view` and under the view that the method removes
    information with. `weights` is the digest of the model's files.
    """
    selecting = load("method", method)
    assert isinstance(selecting, RolloutMethod)  # guaranteed by planning
    chosen = selecting.Parameters.model_validate(parameters)
    removing = selecting.selects_by(chosen)
    assert removing is not None
    tokenizer: Any = load_processor(model).tokenizer
    known, lacking = _Terms(terms, view), _Terms(removed, removing)
    settings = {"method": method, "parameters": parameters, "view": view, "model": model.model_dump(mode="json")}
    inputs = {"preferences": preferences, "terms": terms, "removed": removed}
    with table_writer(selected, SELECTED) as table, appearing(lines) as text:
        for group in _groups(preferences):
            old, less = known.of(group["group_id"]), lacking.of(group["group_id"])
            if old is None or less is None:  # a group that the model cannot encode
                continue
            responses = group["responses"]
            tokens = tokens_of(responses, old, {removing: less["entropies"]})
            rows = list(_rows(group, selecting, tokens, chosen, removing, tokenizer))
            table.write(rows)
            text.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        table.lineage = lineage(
            "training.select_tokens", {**settings, "weights": weights}, inputs, [module_of("method", method)]
        )


def tokens_of(
    responses: Sequence[Mapping[str, Any]], old: Mapping[str, Any], entropies: Mapping[str, Sequence[Sequence[float]]]
) -> Tokens:
    """The tokens of one group under the behaviour policy: all that selects, but not what learns.

    `old` is the row of stored log-probs; `entropies` maps other views to those of each response.
    """

    def flat(nested: Sequence[Sequence[float]]) -> Tensor:
        return torch.tensor(list(chain.from_iterable(nested)), dtype=torch.float32)

    logps, own = flat(old["logprobs"]), flat(old["entropies"])
    count, lengths = len(responses), torch.tensor([len(one["token_ids"]) for one in responses])
    return Tokens(
        logps=logps,
        old=logps,
        sampled=logps,
        reference=None,
        entropy=own,
        old_entropy=own,
        owners=torch.arange(count).repeat_interleave(lengths),
        groups=torch.zeros(count, dtype=torch.long),
        rewards=torch.tensor([one["reward"] for one in responses], dtype=torch.float64),
        truncated=torch.zeros(count, dtype=torch.bool),
        weights=torch.ones_like(logps),
        share=1.0,
        live={name: Seen(logps, flat(values)) for name, values in entropies.items()},
    )


def _rows(
    group: Mapping[str, Any], method: RolloutMethod, tokens: Tokens, parameters: Any, removing: str, tokenizer: Any
) -> Iterator[dict[str, Any]]:
    selected, scores = method.select(tokens, parameters), method.scores(tokens, parameters)
    assert selected is not None and scores is not None
    less = tokens.live[removing].entropy
    assert less is not None
    random = as_many_random(selected, tokens.owners, tokens.old)
    columns = (tokens.entropy, less, scores, selected, random)
    lengths = tokens.lengths.tolist()
    parts = zip(*(column.split(lengths) for column in columns), strict=True)
    for response, (entropies, removed, ranked, chosen, control) in zip(group["responses"], parts, strict=True):
        yield {
            "group_id": group["group_id"],
            "example_id": group["example_id"],
            "sample_index": response["sample_index"],
            "question": question_of(group["messages"]),
            "reward": response["reward"],
            "tokens": token_texts(tokenizer, response["token_ids"]),
            "entropies": entropies.tolist(),
            "removed_entropies": removed.tolist(),
            "scores": ranked.tolist(),
            "selected": chosen.tolist(),
            "random": control.tolist(),
        }


def question_of(messages: Sequence[Mapping[str, Any]]) -> str:
    """The text of the messages, without places of images."""
    return "\n".join(item["text"] for message in messages for item in message["content"] if item["text"])


def _groups(preferences: Path) -> Iterator[dict[str, Any]]:
    kept = read_table(preferences, PREFERENCES, ["kept"])["kept"].to_pylist()
    rows = [number for number, keep in enumerate(kept) if keep]
    groups = Rows(preferences, PREFERENCES, ["group_id", "example_id", "messages", "responses"])
    for start in range(0, len(rows), AT_ONCE):
        yield from groups.take(rows[start : start + AT_ONCE])


class _Terms:
    """The behaviour policy's stored values of groups under a view."""

    def __init__(self, path: Path, view: str) -> None:
        names = read_table(path, TERMS, ["group_id", "term", "view"]).to_pylist()
        wanted = ("old", view)
        self._places = {row["group_id"]: n for n, row in enumerate(names) if (row["term"], row["view"]) == wanted}
        self._rows = Rows(path, TERMS, ["logprobs", "entropies"])

    def of(self, group_id: str) -> dict[str, Any] | None:
        """The row of a group; None if there is none."""
        place = self._places.get(group_id)
        return None if place is None else self._rows[place]
