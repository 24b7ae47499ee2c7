"""Contrastive amplification inside vLLM equals plain transformers, token for token."""

import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts.config import EngineBlock, ModelBlock
from perceptune.core.data import shapes
from perceptune.core.views.apply import shown
from perceptune.core.views.view import Recipe
from perceptune.engines.vllm.contrastive_decoding import KEY, Lockstep, OutOfStepError, Pairs
from perceptune.engines.vllm.preparation import Prepared, Preparer
from perceptune.engines.vllm.requests import Answer, Contrast, Question
from perceptune.engines.vllm.sampler import Sampler
from PIL import Image
from vllm import SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.v1.sample.logits_processor import BatchUpdate

from tests.parity.contrast import Reference
from tests.tiny_models.qwens import build_tiny_qwen2_5_vl

pytestmark = pytest.mark.slow
MODEL = Path("resources/tiny-llava/model")
PROMPTS = 200
LONGEST = 24


def asked(number: int) -> tuple[list[dict[str, Any]], Image.Image, Image.Image]:
    """Messages, image and noisy image of one question about a scene; tasks alternate."""
    scene, row = shapes.scene_and_row(11, "validation", number, shapes.TASKS[number % 4])
    image = shapes.render(scene)
    (noisy,) = shown(Recipe("noise", {"sigma": 0.4}, number), [image])
    content = [{"type": "image", "text": None}, {"type": "text", "text": row.question}]
    return [{"role": "user", "content": content}], image, noisy


def question(number: int, contrast: tuple[float, float] | None, **drawing: Any) -> Question:
    messages, image, noisy = asked(number)
    settings = {"n": 1, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_tokens": LONGEST, "seed": number, **drawing}
    amateur = None if contrast is None else Contrast([noisy], *contrast)
    return Question(messages, [image], contrast=amateur, **settings)


@pytest.fixture(scope="module")
def block() -> ModelBlock:
    return ModelBlock(
        path=str(MODEL), family="llava", dtype="float32", max_model_len=256,
        engine=EngineBlock(enforce_eager=True, max_num_seqs=32),
    )  # fmt: skip


@pytest.fixture(scope="module")
def sampler(block: ModelBlock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampler]:
    """An engine in this process; restores the environment variables that vLLM sets, which later
    tests' processes would inherit.
    """
    before = dict(os.environ)
    yield Sampler(block, None, 1, tmp_path_factory.mktemp("merged"), contrastive=True)
    cleanup_dist_env_and_memory()
    os.environ.clear()
    os.environ.update(before)


def answers(sampler: Sampler, questions: list[Question]) -> list[list[Answer]]:
    prepared = [(str(i), sampler.prepared(one)) for i, one in enumerate(questions)]
    found = dict(sampler.answers(prepared))
    return [found[str(i)] for i in range(len(questions))]


@pytest.mark.parametrize(("strength", "plausibility"), [(0.1, 0.1), (1.0, 0.1)])
def test_vllm_equals_transformers_token_for_token(
    sampler: Sampler, block: ModelBlock, strength: float, plausibility: float
) -> None:
    """200 prompts, greedy, float32; with lambda 1, the amateur changes many answers."""
    found = answers(sampler, [question(i, (strength, plausibility)) for i in range(PROMPTS)])
    plain = answers(sampler, [question(i, None) for i in range(PROMPTS)])
    reference = Reference(block)
    different, changed = [], 0
    for number in range(PROMPTS):
        messages, image, noisy = asked(number)
        tokens = found[number][0].token_ids
        expected, closest = reference.choices(messages, [image], [noisy], strength, plausibility, tokens)
        ended = len(tokens) == LONGEST or tokens[-1] == reference.stop
        if tokens != expected or not ended or reference.stop in tokens[:-1]:
            different.append((number, closest))
        changed += plain[number][0].token_ids != tokens
    print(f"lambda {strength}: {len(different)} of {PROMPTS} differ {different}; {changed} differ from plain decoding")
    assert not different
    assert changed >= (40 if strength == 1 else 5)  # the amplification has an effect on these prompts


@pytest.mark.parametrize("drawing", [{}, {"temperature": 1.0, "n": 3}, {"temperature": 0.7, "top_p": 0.9}])
def test_without_strength_it_is_plain_sampling(sampler: Sampler, drawing: dict[str, Any]) -> None:
    amplified = answers(sampler, [question(i, (0.0, 0.0), **drawing) for i in range(40)])
    plain = answers(sampler, [question(i, None, **drawing) for i in range(40)])
    assert amplified == plain  # texts, tokens and log-probabilities


def test_log_probabilities_are_the_experts_own(sampler: Sampler, block: ModelBlock) -> None:
    """Not those of the amplified distribution: the filter uses the answer's probability given the
    clean image.
    """
    reference = Reference(block)
    for number in (0, 1):
        ((answer,),) = answers(sampler, [question(number, (1.0, 0.1))])
        messages, image, _ = asked(number)
        prefix = reference.family.prefix(reference.processor, messages, [image])
        logps = reference.logits(prefix, answer.token_ids).log_softmax(-1)
        expected = logps.gather(-1, torch.tensor(answer.token_ids)[:, None])[:, 0]
        assert np.allclose(answer.logprobs, expected, atol=1e-4)


def test_answers_do_not_depend_on_what_else_is_asked(sampler: Sampler) -> None:
    drawing = {"temperature": 1.0, "n": 2}
    alone = [answers(sampler, [question(i, (0.5, 0.1), **drawing)])[0] for i in range(6)]
    mixed = answers(sampler, [question(i, (0.9, 0.2) if i % 2 else (0.5, 0.1), **drawing) for i in range(40)])
    together = answers(sampler, [question(i, (0.5, 0.1), **drawing) for i in range(40)])
    assert together[:6] == alone
    assert [mixed[i] for i in (0, 2, 4)] == [alone[i] for i in (0, 2, 4)]


def test_plain_and_amplified_questions_are_asked_separately(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match="question `1`: expected an amateur either in all questions or in none"):
        answers(sampler, [question(0, (0.1, 0.1)), question(1, None)])


def test_two_answers_of_one_question_differ(sampler: Sampler) -> None:
    found = answers(sampler, [question(i, (0.1, 0.1), temperature=1.0, n=4) for i in range(10)])
    assert sum(len({a.text for a in four}) > 1 for four in found) >= 8


def test_images_of_expert_and_amateur_must_be_as_many(sampler: Sampler) -> None:
    messages, image, noisy = asked(0)
    wrong = Question(messages, [image], 1, 0.0, 1.0, 0, 4, 0, Contrast([noisy, noisy], 0.1, 0.1))
    with pytest.raises(ValueError, match="the amateur has 2 images, the expert 1"):
        sampler.prepared(wrong)


def test_an_amateur_that_is_too_long_is_refused(tmp_path: Path) -> None:
    """A view may enlarge its image, and with it the prompt, of which only the expert's fits. The engine
    would cut off the amateur's answer alone.
    """
    folder = build_tiny_qwen2_5_vl(tmp_path)
    messages, small, large = asked(0)[0], Image.new("RGB", (28, 28)), Image.new("RGB", (448, 448))

    def prepared(longest: int, amateur: Image.Image) -> Prepared:
        model = ModelBlock(path=str(folder), family="qwen2_5_vl", dtype="float32", max_model_len=longest)
        drawn = Question(messages, [small], 1, 0.0, 1.0, 0, 4, 0, Contrast([amateur], 0.1, 0.1))
        return Preparer(model, 1)(drawn)

    longest = len(prepared(512, small).prompt["prompt_token_ids"]) + 4
    assert prepared(longest, small).amateur is not None
    with pytest.raises(ValueError, match=rf"tokens and 4 new ones exceed max_model_len {longest}"):
        prepared(longest, large)


def test_a_pair_that_does_not_fit_is_refused(sampler: Sampler) -> None:
    pairs = Pairs(sampler._engine, 256)
    pairs._budget = 300
    prepared = sampler.prepared(question(0, (0.1, 0.1)))
    from perceptune.engines.vllm.sampler import _pairs

    with pytest.raises(OutOfStepError, match="no room for one contrast pair"):
        list(pairs.answered(iter(_pairs("one", prepared))))


def test_a_repeated_warning_is_logged_once(sampler: Sampler, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = next(one for one in logging.getLogger("vllm").handlers if type(one) is logging.StreamHandler)
    monkeypatch.setattr(handler, "stream", io.StringIO())
    for message in ("threads", "threads", "other", "threads"):
        logging.getLogger("vllm.v1.worker.cpu_worker").warning("no %s", message)
    assert [line.rpartition(" ")[2] for line in handler.stream.getvalue().splitlines()] == ["threads", "other"]  # type: ignore[attr-defined]


# errors, tested on the logits processor itself


def told(pair: str, expert: bool) -> SamplingParams:
    return SamplingParams(extra_args={KEY: {"pair": pair, "expert": expert, "strength": 1.0, "plausibility": 0.0}})


def processor(*rows: tuple[SamplingParams, list[int]]) -> Lockstep:
    made = Lockstep(None, torch.device("cpu"), False)  # type: ignore[arg-type]
    added = [(place, parameters, None, answer) for place, (parameters, answer) in enumerate(rows)]
    made.update_state(BatchUpdate(len(rows), [], added, []))
    return made


def test_both_rows_become_the_amplified_one_and_others_stay() -> None:
    made = processor((told("a", False), [5]), (SamplingParams(), [1, 2]), (told("a", True), [5]))
    logits = torch.tensor([[0.0, 1.0], [7.0, 8.0], [2.0, 0.0]])
    found = made.apply(logits.clone())
    assert found.tolist() == [[4.0, -1.0], [7.0, 8.0], [4.0, -1.0]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", True, [1])], "only its expert is in the batch"),
        ([("a", False, [1])], "only its amateur is in the batch"),
        ([("a", True, [1, 2]), ("a", False, [1])], "expert is at token 2"),
        ([("a", True, [1]), ("a", False, [])], "amateur at token 0"),
        ([("a", True, [1, 2]), ("a", False, [1, 3])], "expected the same"),
        ([("a", True, []), ("a", False, []), ("b", True, [])], "contrast pair `b`"),
    ],
)
def test_whatever_is_out_of_step_is_refused(rows: list[tuple[str, bool, list[int]]], message: str) -> None:
    made = processor(*[(told(pair, expert), answer) for pair, expert, answer in rows])
    with pytest.raises(OutOfStepError, match=message):
        made.apply(torch.zeros(len(rows), 3))


def test_a_partner_that_is_preempted_is_noticed() -> None:
    made = processor((told("a", True), [1]), (told("a", False), [1]))
    made.apply(torch.zeros(2, 3))
    made.update_state(BatchUpdate(1, [1], [], []))
    with pytest.raises(OutOfStepError, match="only its expert"):
        made.apply(torch.zeros(1, 3))


def test_a_half_told_pair_is_refused_before_it_is_queued() -> None:
    with pytest.raises(ValueError, match="expected pair, expert, strength, plausibility"):
        Lockstep.validate_params(SamplingParams(extra_args={KEY: {"pair": "a"}}))
