"""Stored log-probs of the reference model, and of the policy before a round."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import IO, Literal

import numpy as np
import pyarrow as pa

from perceptune.contracts.config import ModelBlock, ViewBlock
from perceptune.contracts.errors import UserError
from perceptune.contracts.paths import FEATURES
from perceptune.contracts.plugins import module_of
from perceptune.contracts.provenance.lineage import lineage
from perceptune.contracts.tables.io import table_writer
from perceptune.contracts.tables.places import Places
from perceptune.contracts.tables.probe import needs_separate_sequences
from perceptune.contracts.tables.terms import TERMS
from perceptune.core.methods.method import Stored
from perceptune.engines.training.feeding import Feed, Source
from perceptune.engines.training.groups import StoredTokens, all_under
from perceptune.engines.training.image_features import feature_cache, finish
from perceptune.engines.training.stored_logprobs import stored_terms
from perceptune.models.loading import load_model, load_trained
from perceptune.runtime.ahead import workers_of
from perceptune.stages.training.encodable import Prompts
from perceptune.stages.training.groups import KeptLists, kept_lists

AT_ONCE = {False: (16, 4096), True: (1, 8192)}
"""Groups per pass, and response tokens per packed row, by `of_round`.

For rounds, they match training: with 16-bit weights, other shapes round differently, and the first
ratios would not be 1.
"""
WRITTEN = 1024
"""Groups written at once."""
FLOAT = np.dtype(np.float32)


def run(
    *,
    preferences: Path,
    examples: Path,
    terms: Path,
    model: ModelBlock,
    weights: str,
    stored: Sequence[Stored],
    adapter: Path | None,
    views: dict[str, ViewBlock],
    of_round: bool = False,
    quantisation: Literal["none", "nf4"] = "none",
    saliencies: Mapping[str, Path] | None = None,
    probe: Path | None = None,
    features: Path = Path(FEATURES),
    halvings: int = 0,
) -> None:
    """Writes the `terms` table: per-token log-probs of all kept responses, for each of `stored`.

    `reference` is the base model; `old` is the policy, which is the base model if there is no
    `adapter`. A view is either stored with the groups or one of the config's blocks `views`. Groups
    `of_round` also have entropies. `quantisation` is that of the training that reads them.
    `saliencies` are the tables that the views need, by block; `probe` is that of a model of family
    `auto`; `features` is the folder of features of images.
    `weights` is the digest of the model's files. Each of the `halvings` halves the batch size,
    without changing the result. Raises `UserError` for a log-prob that is NaN or infinite.
    """
    shown = list(dict.fromkeys(s.view for s in stored))
    groups_at_once, budget = AT_ONCE[of_round]
    separate = needs_separate_sequences(probe)
    prompts = Prompts(model, separate)
    lists = kept_lists(preferences, examples, shown, views, prompts, redrawn=of_round, saliencies=saliencies)
    source: dict[Stored, Stored] = {one: Stored("reference", one.view) if adapter is None else one for one in stored}
    terms.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:

        def scratch() -> IO[bytes]:
            return stack.enter_context(tempfile.TemporaryFile(dir=terms.parent))

        found = {one: _Found(lists.under(one.view), scratch(), scratch()) for one in source.values()}
        if lists:
            sources = [
                Source(values.lists, partial(prompts.encoder, all_under(one.view), budget >> halvings))
                for one, values in found.items()
            ]
            feed = stack.enter_context(Feed(sources, workers_of(model)))  # its workers start while the model is loaded
            loaded = load_model(model, quantisation=quantisation)
            policy = loaded if adapter is None else load_trained(loaded, adapter, trainable=False)
            autocast = model.dtype if of_round else None
            cached = feature_cache(features, model, weights, policy, autocast)
        for number, (one, values) in enumerate(found.items() if lists else ()):
            plain = one.term == "reference" and adapter is not None
            with policy.disable_adapter() if plain else nullcontext():
                for group_id, tokens in stored_terms(
                    policy,
                    feed,
                    1 if separate else max(groups_at_once >> halvings, 1),  # a row for each response
                    source=number,
                    lengths=values.lists.tokens(),
                    entropies=of_round,
                    autocast=autocast,
                    features=cached,
                ):
                    if not all(math.isfinite(x) for response in tokens.logps for x in response):
                        raise UserError(
                            f"group `{group_id}`, view `{one.view}`: the {one.term}'s log-probs are NaN or infinite",
                            f"check the weights of `{model.path}`; `dtype: float16` can overflow, use `bfloat16`",
                        )
                    values.put(group_id, tokens)
        if lists:
            finish(cached)
        parameters = {"model": model.model_dump(mode="json"), "weights": weights, "stored": [list(s) for s in stored]}
        parameters |= {"views": {name: block.model_dump(mode="json") for name, block in views.items()}}
        parameters |= {"quantisation": quantisation}
        inputs = {"preferences": preferences, "examples": examples}
        inputs |= {f"saliency {name}": path for name, path in (saliencies or {}).items()}
        if probe is not None:
            inputs["probe"] = probe
        if adapter is not None:
            inputs["adapter"] = adapter / "adapter_model.safetensors"
        plugins = [module_of("family", model.family), *(module_of("view", op) for op in lists.ops)]
        with table_writer(terms, TERMS) as table:
            for one in stored:
                for part in found[source[one]].tables(one):
                    table.write(part)
            table.lineage = lineage("training.stored_logprobs", parameters, inputs, plugins)


class _Found:
    """The values of all groups, which are computed in another order than they are stored in.

    They are in temporary files, where each token has its place: the lengths of all responses are
    known.
    """

    def __init__(self, lists: KeptLists, logps: IO[bytes], entropies: IO[bytes]) -> None:
        self.lists = lists
        self._places = Places(lists.entries["group_id"])
        self._starts = [0, *accumulate(lists.tokens())]
        self._logps, self._entropies = logps, entropies

    def put(self, group_id: str, tokens: StoredTokens) -> None:
        """Stores the values of a group."""
        start = self._starts[self._places[group_id]]
        for file, values in ((self._logps, tokens.logps), (self._entropies, tokens.entropies or [])):
            file.seek(start * FLOAT.itemsize)
            file.write(np.array(list(chain.from_iterable(values)), FLOAT).tobytes())

    def tables(self, of: Stored) -> Iterator[pa.Table]:
        """The rows of a `terms` table, in the order of the lists."""
        has_entropies = self._entropies.seek(0, os.SEEK_END) > 0
        for file in (self._logps, self._entropies):
            file.seek(0)
        for part in self.lists.entries.to_batches(WRITTEN):
            yield pa.table({
                "group_id": part["group_id"],
                "term": [of.term] * part.num_rows,
                "view": [of.view] * part.num_rows,
                "logprobs": _nested(self._logps, part["lengths"]),
                "entropies": _nested(self._entropies, part["lengths"]) if has_entropies else pa.nulls(part.num_rows),
            })  # fmt: skip


def _nested(file: IO[bytes], lengths: pa.ListArray) -> pa.ListArray:
    """The next values of a file, [group][response][token], for these lengths [group][response]."""
    responses = lengths.flatten().to_numpy()
    values = np.frombuffer(file.read(int(responses.sum()) * FLOAT.itemsize), FLOAT)
    groups = lengths.value_lengths().to_numpy()
    return pa.ListArray.from_arrays(_offsets(groups), pa.ListArray.from_arrays(_offsets(responses), values))


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
