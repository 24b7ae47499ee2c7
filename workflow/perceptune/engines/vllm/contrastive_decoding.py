"""Contrastive amplification in vLLM: two requests advance in lockstep and share logits.

Each pair is two requests of one engine: the expert sees the image, the amateur another view of it.
At every step, this logits processor replaces both rows by the amplified one, so both draw the same
token (same logits, same seed). This is sound only while both are in the batch with the same answer
so far; anything else raises `OutOfStepError`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor
from vllm.v1.sample.logits_processor.builtin import process_dict_updates

from perceptune.core.views.contrastive_decoding import amplified

if TYPE_CHECKING:
    from vllm import LLM
    from vllm.config import VllmConfig

KEY = "perceptune_contrast"
"""Key in `SamplingParams.extra_args`."""


class OutOfStepError(RuntimeError):
    """The two requests of a pair are not at the same token of the same answer."""


@dataclass(frozen=True)
class _Row:
    """A request of a pair in the batch."""

    pair: str
    expert: bool
    strength: float
    plausibility: float
    answer: list[int]
    """Tokens so far; vLLM appends to this list object."""


class Lockstep(LogitsProcessor):
    """vLLM's logits processor. Requests without `extra_args[KEY]` are left unchanged."""

    def __init__(self, vllm_config: VllmConfig, device: torch.device, is_pin_memory: bool) -> None:
        self._device = device
        self._rows: dict[int, _Row] = {}
        self._places: tuple[torch.Tensor, ...] | None = None

    def is_argmax_invariant(self) -> bool:
        """False: greedy decoding also needs this processor."""
        return False

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Rejects an incomplete pair before it is queued."""
        settings = (sampling_params.extra_args or {}).get(KEY)
        if settings is not None and set(settings) != {"pair", "expert", "strength", "plausibility"}:
            raise ValueError(
                f"extra_args[{KEY!r}] has {sorted(settings)}, expected pair, expert, strength, plausibility"
            )

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follows the requests of pairs that enter, move in or leave the batch."""
        if process_dict_updates(self._rows, batch_update, _row):
            self._places = None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Writes each pair's amplified logits into both of its rows of `logits`, (requests, V).

        Raises `OutOfStepError` if the two requests of a pair are not at the same token.
        """
        if not self._rows:
            return logits
        if self._places is None:
            self._places = self._paired()
        self._check()
        experts, amateurs, strength, plausibility = self._places
        combined = amplified(logits[experts], logits[amateurs], strength, plausibility)
        logits[experts] = combined
        logits[amateurs] = combined
        return logits

    def _pairs(self) -> dict[str, dict[bool, int]]:
        pairs: dict[str, dict[bool, int]] = {}
        for place, row in self._rows.items():
            pairs.setdefault(row.pair, {})[row.expert] = place
        return pairs

    def _paired(self) -> tuple[torch.Tensor, ...]:
        pairs = self._pairs()
        for name, places in pairs.items():
            if len(places) != 2:
                present = "expert" if True in places else "amateur"
                raise OutOfStepError(
                    f"contrast pair `{name}`: only its {present} is in the batch, expected both in every step"
                )
        self._checked = [(self._rows[p[True]], self._rows[p[False]]) for p in pairs.values()]
        experts = [places[True] for places in pairs.values()]
        amateurs = [places[False] for places in pairs.values()]
        columns = [[getattr(self._rows[e], name) for e in experts] for name in ("strength", "plausibility")]
        numbers = [torch.tensor(c, dtype=torch.float32, device=self._device)[:, None] for c in columns]
        return torch.tensor(experts, device=self._device), torch.tensor(amateurs, device=self._device), *numbers

    def _check(self) -> None:
        for expert, amateur in self._checked:
            if len(expert.answer) != len(amateur.answer) or expert.answer[-1:] != amateur.answer[-1:]:
                raise OutOfStepError(
                    f"contrast pair `{expert.pair}`: its expert is at token {len(expert.answer)} ({expert.answer[-1:]}), its "
                    f"amateur at token {len(amateur.answer)} ({amateur.answer[-1:]}), expected the same"
                )


def _row(parameters: SamplingParams, prompt: list[int] | None, answer: list[int]) -> _Row | None:
    settings = (parameters.extra_args or {}).get(KEY)
    if settings is None:
        return None
    return _Row(
        settings["pair"], settings["expert"], float(settings["strength"]), float(settings["plausibility"]), answer
    )


@dataclass(frozen=True)
class Pair:
    """One amplified answer to draw: the two prompts, and their common sampling parameters."""

    name: str
    expert: Mapping[str, Any]
    amateur: Mapping[str, Any]
    sampling: SamplingParams
    strength: float
    plausibility: float


class Pairs:
    """Feeds pairs to an engine: both requests are admitted in the same step and never preempted.

    vLLM's scheduler admits waiting requests in order while the step's token budget and the cache
    have room. A pair enters only when there is certainly room for both: complete prompts in one
    step, and cache for the longest answers of all running requests.
    """

    def __init__(self, engine: LLM, max_model_len: int) -> None:
        self._engine, self._longest = engine, max_model_len
        self._numbers = itertools.count()
        settings = engine.llm_engine.vllm_config
        self._budget = settings.scheduler_config.max_num_batched_tokens
        self._most = settings.scheduler_config.max_num_seqs
        cache = settings.cache_config
        self._cache = (cache.num_gpu_blocks - 1) * cache.block_size  # vLLM reserves block 0
        self._block = cache.block_size

    def answered(self, pairs: Iterator[Pair], ready: Callable[[], bool] = lambda: True) -> Iterator[tuple[str, Any]]:
        """(name of the pair, the expert's finished `RequestOutput`), in any order.

        Pairs are taken when there is room, and not waited for while others run: `ready` says whether
        the next one would be there at once. Raises `OutOfStepError` if the two requests of a pair ended
        differently.
        """
        more = True
        running: dict[str, str] = {}  # request id to pair
        used: dict[str, int] = {}  # pair to the cache that it may fill
        ended: dict[str, list[Any]] = {}
        engine = self._engine.llm_engine
        while more or running:
            entering = 0
            while more and self._has_room(len(running), entering, sum(used.values())) and (not running or ready()):
                pair = next(pairs, None)
                if pair is None:
                    more = False
                    break
                for expert, prompt in ((True, pair.expert), (False, pair.amateur)):
                    identity = str(next(self._numbers))
                    engine.add_request(identity, prompt, _parameters(pair, expert))
                    running[identity] = pair.name
                used[pair.name] = 2 * self._rounded(self._longest)
                entering += 1
            for output in engine.step() if running else ():
                if output.finished:
                    name = running.pop(output.request_id)
                    ended.setdefault(name, []).append(output)
                    if len(ended[name]) == 2:
                        used.pop(name)
                        yield name, _agreed(name, ended.pop(name))

    def _rounded(self, tokens: int) -> int:
        return -(-tokens // self._block) * self._block

    def _has_room(self, running: int, entering: int, used: int) -> bool:
        # running requests take one token each
        tokens = running - 2 * entering + (entering + 1) * 2 * self._longest
        if running + 2 > self._most or tokens > self._budget or used + 2 * self._rounded(self._longest) > self._cache:
            if not running:
                raise OutOfStepError(
                    f"no room for one contrast pair: two prompts of up to {self._longest} tokens, {self._budget} tokens a step, "
                    f"{self._most} sequences, cache for {self._cache} tokens; lower `max_model_len` of the model"
                )
            return False
        return True


def _parameters(pair: Pair, expert: bool) -> SamplingParams:
    parameters = pair.sampling.clone()
    settings = {"pair": pair.name, "expert": expert, "strength": pair.strength, "plausibility": pair.plausibility}
    parameters.extra_args = {KEY: settings}
    return parameters


def _agreed(name: str, ended: Sequence[Any]) -> Any:
    """The output of the expert, which was queued first."""
    first, second = sorted(ended, key=lambda output: int(output.request_id))
    if list(first.outputs[0].token_ids) != list(second.outputs[0].token_ids):
        raise OutOfStepError(f"contrast pair `{name}`: expert and amateur ended with different answers")
    return first
