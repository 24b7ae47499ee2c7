"""Comparisons of two policies or of the two answers of pairs, and agreement of judges and people."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from perceptune.contracts.config.blocks import Block, Positive, Seed

Rubric = Literal["preference", "grades"]


class ComparisonBlock(Block):
    """Two answers to each question, compared: those of two policies to a benchmark, or the two of
    each pair that an experiment learns from."""

    policies: tuple[str, str] | None = None
    """Two policies to compare on `benchmark`: models, experiments, or rounds (`grpo@3`), such as
    `[perpo, dpo]`. An experiment in rounds stands for its last round. Null: the pairs of
    `experiment`."""
    benchmark: str | None = None
    """A benchmark of both policies. Their greedy answers under its first view are compared."""
    experiment: str | None = None
    """An experiment that learns from pairs or dataset preferences, instead of `policies` and
    `benchmark`: compares the chosen with the rejected answers."""
    judge: str | None = None
    """A judge of this config, which sees both answers; null: compares the metrics of `benchmark`."""
    rubric: Rubric = "preference"
    """What the judge is asked: `preference`, which answer is better, or a tie; `grades`, a grade from
    1 to 3 for each (P2-DPO, appendix G.1)."""
    orders: Literal["random", "both"] = "random"
    """Order in which the judge sees the answers: `random`, by seed and question; `both`, which takes
    twice as many verdicts and measures whether the judge prefers a place."""
    prompt: str | None = None
    """File with a prompt for the judge (docs/benchmarks.md); null: the rubric's own."""
    limit: Positive | None = None
    """Maximum number of questions that the judge is asked about, drawn by seed; null: all."""
    seed: Seed = 0
    """Seed of the order, of the questions drawn, and of the bootstrap."""
    resamples: Positive = 9999
    """Bootstrap resamples for the 95 % intervals."""

    @model_validator(mode="after")
    def _one_subject(self) -> ComparisonBlock:
        of_policies = self.policies is not None and self.benchmark is not None and self.experiment is None
        of_pairs = self.policies is None and self.benchmark is None and self.experiment is not None
        if not of_policies and not of_pairs:
            raise ValueError("expected either `policies` and `benchmark`, or `experiment`")
        if self.policies and self.policies[0] == self.policies[1]:
            raise ValueError(f"`policies` names `{self.policies[0]}` twice, expected two different policies")
        if self.judge is None and of_pairs:
            raise ValueError("a comparison of an experiment's pairs needs a `judge`")
        for key in ("rubric", "orders", "prompt", "limit"):
            if self.judge is None and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"`{key}` needs a `judge`")
        return self


class AgreementBlock(Block):
    """How far a judge agrees with a second judge or with people, on the same answers, or with the
    tokens that a method selects."""

    benchmark: str | None = None
    """A benchmark whose judge sorts answers, such as PAPO's `errors`; or `comparison` or `tokens`."""
    comparison: str | None = None
    """A comparison with a judge; or `benchmark` or `tokens`."""
    tokens: str | None = None
    """An experiment whose method selects tokens (CPPO), or one of its rounds (`cppo@2`): its selection
    is compared with the words that `judge` says state what the image shows. An experiment stands for
    its last round; or `benchmark` or `comparison`."""
    policies: tuple[str, ...] = ()
    """Policies whose answers to `benchmark` count; empty: all that are evaluated on it."""
    judge: str | None = None
    """A second judge of this config, which is asked the same questions, or with `tokens` the only
    judge; or `labels`."""
    labels: str | None = None
    """File with people's labels (CSV, JSON lines or Parquet, docs/benchmarks.md); or `judge`."""
    limit: Positive = 100
    """With `tokens`, the maximum number of answers that the judge is asked about, drawn by seed."""
    seed: Seed = 0
    """Seed of the bootstrap, and with `tokens` of the answers drawn."""
    resamples: Positive = 9999
    """Bootstrap resamples for the 95 % intervals."""

    @model_validator(mode="after")
    def _one_of_each(self) -> AgreementBlock:
        if [self.benchmark, self.comparison, self.tokens].count(None) != 2:
            raise ValueError("expected either `benchmark`, `comparison` or `tokens`")
        if self.tokens and (self.judge is None or self.labels):
            raise ValueError("`tokens` needs a `judge` and no `labels`")
        if (self.judge is None) == (self.labels is None):
            raise ValueError("expected either `judge` or `labels`")
        if self.policies and self.comparison:
            raise ValueError("`policies` belongs to `benchmark`, a comparison has its own")
        if self.policies and self.tokens:
            raise ValueError("`policies` belongs to `benchmark`; `tokens` names the experiment or round")
        if self.limit != type(self).model_fields["limit"].default and not self.tokens:
            raise ValueError("`limit` belongs to `tokens`")
        return self
