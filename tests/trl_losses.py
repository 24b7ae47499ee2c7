"""The losses of TRL, computed by its own trainers: models and processes are stand-ins."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.preference_losses import Numbers

BEFORE = 2
"""Prompt tokens; the first is never predicted."""


def _stand_in(**attributes: Any) -> SimpleNamespace:
    """A trainer in a single process on the CPU."""
    alone = SimpleNamespace(
        device=torch.device("cpu"), gather=lambda value: value, gather_for_metrics=lambda value: value
    )
    defaults: dict[str, Any] = {
        "model": SimpleNamespace(training=True), "accelerator": alone, "aux_loss_enabled": False, "ld_alpha": None,
        "precompute_ref_logps": True, "f_divergence_type": "reverse_kl", "loss_weights": [1.0], "use_weighting": False,
        "label_smoothing": 0.0, "_metrics": {"train": defaultdict(list)}, "_total_train_tokens": 0, "_tp_size": 1,
    }  # fmt: skip
    return SimpleNamespace(**{**defaults, **attributes})


def _batch(sums: Sequence[float], lengths: Sequence[int]) -> tuple[dict[str, torch.Tensor], Any]:
    """A batch of sequences of these lengths, and a model under which they have these log-probs."""
    width = max(lengths)
    mask = torch.tensor([[0] * BEFORE + [1] * n + [0] * (width - n) for n in lengths])
    shares = [[0.0] * (BEFORE - 1) + [s / n] * n + [0.0] * (width - n) for s, n in zip(sums, lengths, strict=True)]
    nothing = torch.zeros(len(shares), len(shares[0]))
    outputs = SimpleNamespace(
        log_probs=torch.tensor(shares, dtype=torch.float64),
        entropy=nothing,
        mean_logits=nothing,
        is_top1=nothing.bool(),
    )
    return (
        {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask},
        lambda **_: outputs,
    )


def dpo_trainer_loss(kind: str, numbers: Numbers, beta: float, label_smoothing: float = 0.0) -> float:
    """`DPOTrainer`'s loss of one pair: the first and the last of the responses."""
    from trl.trainer.dpo_trainer import DPOTrainer

    inputs, model = _batch(*_ends(numbers.policy, numbers.lengths.astype(int)))
    inputs |= {"ref_chosen_logps": torch.tensor(numbers.reference[:1])}
    inputs |= {"ref_rejected_logps": torch.tensor(numbers.reference[-1:])}
    trainer = _stand_in(loss_types=[kind], beta=beta, label_smoothing=label_smoothing)
    return float(DPOTrainer._compute_loss(trainer, model, inputs, False))


def kto_trainer_loss(
    kind: str, numbers: Numbers, desirable: Sequence[bool], beta: float, weights: tuple[float, float], z0: float = 0.0
) -> float:
    """`KTOTrainer`'s loss of one batch, in which the answers to other prompts have log-ratio `z0`."""
    from trl.trainer.kto_trainer import KTOTrainer

    inputs, model = _batch(numbers.policy, numbers.lengths.astype(int))
    count = len(numbers.policy)
    inputs |= {"label": torch.tensor(desirable), "ref_logps": torch.tensor(numbers.reference)}
    inputs |= {"ref_KL_logps": torch.zeros(count, dtype=torch.float64)}
    trainer = _stand_in(
        loss_type=kind,
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        calculate_KL=kind == "kto",
    )
    trainer._compute_kl_logps = lambda *_: torch.full((count,), z0, dtype=torch.float64)
    return float(KTOTrainer._compute_loss(trainer, model, inputs, False))


def simpo_loss(numbers: Numbers, beta: float, gamma: float, monkeypatch: pytest.MonkeyPatch) -> float:
    """`CPOTrainer`'s loss `simpo` of one pair."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.cpo.cpo_trainer import CPOTrainer

    trainer = _stand_in(loss_type="simpo", alpha=0.0, beta=beta, simpo_gamma=gamma)
    return float(CPOTrainer.cpo_loss(trainer, *_averages(numbers))[0])


def orpo_loss(numbers: Numbers, beta: float, monkeypatch: pytest.MonkeyPatch) -> float:
    """`ORPOTrainer`'s loss of one pair, with the negative log-likelihood of the response alone."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.orpo.orpo_trainer import ORPOTrainer

    chosen, rejected = _averages(numbers)
    ratios = ORPOTrainer.odds_ratio_loss(_stand_in(beta=beta), chosen, rejected)[0]
    return float(-chosen - ratios)


def _ends(*values: np.ndarray) -> list[list[Any]]:
    return [[one[0], one[-1]] for one in values]


def _averages(numbers: Numbers) -> tuple[torch.Tensor, torch.Tensor]:
    averages = torch.tensor(numbers.policy / numbers.lengths)
    return averages[:1], averages[-1:]
