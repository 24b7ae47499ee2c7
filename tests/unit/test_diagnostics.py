"""Diagnostics of pairs: drawn tokens, the estimator of the Fisher trace, and summaries."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from perceptune.contracts.tables.diagnostics import DIAGNOSTICS
from perceptune.contracts.tables.io import write_table
from perceptune.core.diagnostics import OF_ANSWERS, OF_WEIGHTS, compared, drawn_groups, means, uniforms
from perceptune.core.methods.logprob_queries import Look
from perceptune.engines.training import gradients
from perceptune.engines.training.gradients import drawn_tokens
from perceptune.report.sections.diagnostics import LABELS, diagnostics_section
from perceptune.report.write import _environment


def head(vocabulary: int, width: int) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(width, vocabulary, bias=False).double().requires_grad_(False)


def test_tokens_are_drawn_with_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uniform numbers on a grid: each token is drawn as often as its probability says."""
    linear, count = head(7, 3), 20_000
    monkeypatch.setattr(gradients, "LOGITS_AT_ONCE", 7 * 4 * 999)  # in several blocks
    state = torch.tensor([[0.3, -1.2, 2.0]], dtype=torch.float64)
    grid = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    tokens = drawn_tokens(linear, state.expand(count, -1), grid)
    shares = tokens.bincount(minlength=7).double() / count
    assert (shares - linear(state)[0].softmax(-1)).abs().max() <= 1 / count
    assert drawn_tokens(linear, state, torch.zeros(1, dtype=torch.float64)).tolist() == [0]


def test_impossible_tokens_are_not_drawn() -> None:
    linear = torch.nn.Linear(1, 4, bias=False).double().requires_grad_(False)
    linear.weight.copy_(torch.tensor([[-2000.0], [0.0], [-2000.0], [-2000.0]]))
    numbers = torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert drawn_tokens(linear, torch.ones(3, 1, dtype=torch.float64), numbers).tolist() == [1, 1, 1]


def test_one_draw_per_token_estimates_the_fisher_trace_without_bias() -> None:
    """The expectation over all draws at two places of an answer is the sum of both places' traces.

    For logits W h, the trace of a place is |h|^2 (1 - sum p^2).
    """
    weight = head(4, 3).weight.clone().requires_grad_(True)
    states = torch.tensor([[0.5, -1.0, 0.2], [1.5, 0.3, -0.7]], dtype=torch.float64)
    logps = (states @ weight.T).log_softmax(-1)
    likely = logps.detach().exp()
    expected = 0.0
    for first, second in itertools.product(range(4), repeat=2):
        (gradient,) = torch.autograd.grad(logps[0, first] + logps[1, second], weight, retain_graph=True)
        expected += float(likely[0, first] * likely[1, second] * gradient.square().sum())
    trace = (states.square().sum(1) * (1 - likely.square().sum(1))).sum()
    assert expected == pytest.approx(float(trace), rel=1e-12)


def test_means_are_those_of_explicit_gradients() -> None:
    random = np.random.default_rng(0)
    chosen, rejected = random.normal(size=(2, 9, 5))
    drawn = random.normal(size=(2, 9, 5))

    def squared(vectors: np.ndarray) -> np.ndarray:
        return (vectors**2).sum(-1)

    columns = {
        "chosen_squared": squared(chosen), "rejected_squared": squared(rejected), "difference_squared": squared(chosen - rejected),
        "chosen_drawn_squared": squared(drawn[0]), "rejected_drawn_squared": squared(drawn[1]), "chosen_image": chosen[:, 0],
        "rejected_image": rejected[:, 0], "chosen_tokens": np.arange(9.0), "rejected_tokens": np.full(9, 4.0),
    }  # fmt: skip
    found = {row["metric"]: row for row in means(columns, [*OF_WEIGHTS, *OF_ANSWERS], 0, ("focus",))}
    norm = np.linalg.norm
    cosines = [a @ b / norm(a) / norm(b) for a, b in zip(chosen, rejected, strict=True)]
    expected = {
        "gradient_difference": norm(chosen - rejected, axis=1).mean(),
        "gradient_chosen": norm(chosen, axis=1).mean(),
        "gradient_rejected": norm(rejected, axis=1).mean(),
        "gradient_cosine": np.mean(cosines),
        "fisher_trace": squared(drawn).mean(),
        "empirical_fisher_trace": (squared(chosen).mean() + squared(rejected).mean()) / 2,
        "image_dependence_chosen": chosen[:, 0].mean(),
        "image_dependence_rejected": rejected[:, 0].mean(),
        "image_dependence_difference": (chosen - rejected)[:, 0].mean(),
        "tokens_chosen": 4.0,
        "tokens_rejected": 4.0,
    }
    assert {name: row["value"] for name, row in found.items()} == pytest.approx(expected, rel=1e-12)
    for name, row in found.items():
        assert row["ci_low"] <= row["value"] <= row["ci_high"], name
    width = 2 * 1.96 * np.std(cosines) / 3  # of the mean of nine
    assert float(found["gradient_cosine"]["ci_high"]) - float(found["gradient_cosine"]["ci_low"]) == pytest.approx(
        width, rel=0.1
    )


def test_no_gradient_has_cosine_0() -> None:
    zeros = dict.fromkeys(("chosen_squared", "rejected_squared", "difference_squared"), np.zeros(3))
    (row,) = means(zeros, ["gradient_cosine"], 0, ("focus",))
    assert (row["value"], row["ci_low"], row["ci_high"]) == (0, 0, 0)


def test_pairs_are_compared_under_the_view_of_the_methods_query() -> None:
    looks = [Look("original", (0, 1)), Look("enhanced", (0,)), Look("noise", (2, 3))]
    pairs = {"focus": (0, 1), "robust": (2, 3)}
    assert compared(looks, pairs, 4) == {"focus": looks[0], "robust": looks[2]}
    assert compared(looks[:2], pairs, 4) == {"focus": looks[0]}
    assert compared([Look("original", (0, 1, 2))], {}, 3) == {"extremes": Look("original", (0, 2))}
    assert compared([Look("original", (0,))], {}, 3) == {}
    assert compared([Look("original", (0,))], {}, 1) == {}


def test_more_groups_include_the_fewer_ones() -> None:
    names = [str(number) for number in range(50)]
    few, many = (drawn_groups(names, count, seed=1) for count in (5, 20))
    assert few < many <= set(names)
    assert drawn_groups(reversed(names), 5, seed=1) == few
    assert drawn_groups(names, 5, seed=2) != few
    assert drawn_groups(names, 100, seed=1) == set(names)


def test_uniform_numbers_depend_on_the_address_only() -> None:
    assert uniforms(4, 1, "a", "focus").tolist() == uniforms(4, 1, "a", "focus").tolist()
    assert len({uniforms(1, seed, *address)[0] for seed, address in ((1, "ab"), (2, "ab"), (1, "ba"))}) == 3


def test_the_report_shows_both_points_in_time_of_each_kind(tmp_path: Path) -> None:
    fixed = {"experiment": "a<b", "kind": "extremes", "view": "noise", "weights": "all", "n": 1234}
    numbers = {"gradient_difference": (0.0123456, 0.01, 0.02), "fisher_trace": (98765.4, 90000.0, 100000.0)}
    numbers["image_dependence_chosen"] = (-1.5, float("nan"), float("nan"))
    rows = [
        {**fixed, "point": point, "metric": metric, "value": value, "ci_low": low, "ci_high": high}
        for point in ("start", "end")
        for metric, (value, low, high) in numbers.items()
    ]
    write_table(tmp_path / "a.parquet", DIAGNOSTICS, rows, {})
    section = diagnostics_section({"a<b": tmp_path / "a.parquet"})
    assert section is not None and diagnostics_section({}) is None
    assert [row["point"] for row in section["rows"]] == ["before training", "after training"]
    shown = dict(zip(section["titles"], section["rows"][0]["cells"], strict=True))
    assert {title: cell for title, cell in shown.items() if cell[0]} == {
        "norm of the difference": ("0.0123", "[0.01, 0.02]"),
        "Fisher trace, drawn tokens": ("98,765", "[90,000, 100,000]"),
        "image dependence, chosen": ("\u22121.5", ""),
    }
    assert LABELS.keys() == {*OF_WEIGHTS, *OF_ANSWERS}
    imported = '{% from "macros.html.jinja" import table with context %}{% include "diagnostics.html.jinja" %}'
    page = _environment().from_string(imported).render(diagnostics=section)
    assert "a&lt;b" in page and "best and worst <small" in page and "98,765<span" in page
