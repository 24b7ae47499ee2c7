"""The shared-prefix pass equals N separate forward passes of the plain model: loss and gradients,
float32, in rows with a mask and in one row without padding.
"""

import io
import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from perceptune.contracts.config import ModelBlock
from perceptune.core.methods.method import Group, GroupMethod
from perceptune.engines.training import branch_attention, image_attention, shared_prefix
from perceptune.engines.training.shared_prefix import Packed, Prompted, branched, packed, response_logps, token_logps
from perceptune.models.families.family import Family
from perceptune.models.loading import load_model, load_processor, outline
from perceptune.models.placement import language_model
from perceptune.runtime.tensors import _content
from PIL import Image
from transformers import PreTrainedModel

from tests.plugins import FAMILIES, METHODS
from tests.tiny_models import BUILDERS

from .adapters import with_random_adapter

TOLERANCE = 1e-5
"""Largest allowed relative difference: float32 sums in a different order (5e-7 was observed)."""


class Setup:
    """A tiny model with a random adapter, and lists of several shapes."""

    answer_type = 0
    """Type of generated tokens, for models that read the types of tokens."""

    def __init__(self, name: str, folder: Path) -> None:
        BUILDERS[name](folder, 0)
        self.block = block = ModelBlock(path=str(folder), family=name, dtype="float32")
        self.family: Family = FAMILIES[name]
        self.processor = load_processor(block)
        self.model = with_random_adapter(load_model(block), self.family)
        self.model.eval()
        self.random = np.random.default_rng(1)

    def image(self, width: int, height: int) -> Image.Image:
        return Image.fromarray(self.random.integers(0, 255, (height, width, 3), dtype=np.uint8))

    def group(self, question: str, sizes: Sequence[tuple[int, int]], lengths: Sequence[int]) -> Prompted:
        content: list[dict[str, Any]] = [{"type": "image", "text": None} for _ in sizes]
        messages = [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]
        prefix = self.family.prefix(self.processor, messages, [self.image(*size) for size in sizes])
        positions = self.family.positions(self.model.get_base_model(), prefix)  # type: ignore[arg-type]
        return Prompted(prefix, positions, [self.random.integers(20, 250, n).tolist() for n in lengths])

    def gradients(self, loss: torch.Tensor, last: bool = True) -> dict[str, torch.Tensor]:
        """Gradients of a loss, after which the graph is freed if it is the last one."""
        self.model.zero_grad()
        loss.backward(retain_graph=not last)
        return {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}

    def separate(self, group: Prompted) -> torch.Tensor:
        """Summed log-probability of every response, from one plain forward pass per response."""
        sums = []
        for response in group.responses:
            inputs = dict(group.prefix)
            ids = torch.cat([inputs["input_ids"], torch.tensor([list(response)])], dim=1)
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            for name in {"token_type_ids", "mm_token_type_ids"} & {*inputs}:
                after = torch.full((1, len(response)), self.answer_type, dtype=inputs[name].dtype)
                inputs[name] = torch.cat([inputs[name], after], dim=1)
            logps = self.model(**inputs).logits[0].log_softmax(-1)
            start = ids.shape[1] - len(response)
            sums.append(torch.stack([logps[start - 1 + k, token] for k, token in enumerate(response)]).sum())
        return torch.stack(sums)


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def groups(setup: Setup) -> list[Prompted]:
    """Lists of different sizes, with answers of one to nine tokens, images of different shapes, and
    one prompt with two images. The same in every test, whichever ran before.
    """
    setup.random = np.random.default_rng(1)
    return [
        setup.group("locate the red circle.", [(112, 112)], [1, 9, 4, 1]),
        setup.group("read", [(120, 80)], [3, 2]),
        setup.group("is there a cross? look twice.", [(56, 112), (112, 70)], [1, 5, 7]),
    ]


def relative(first: torch.Tensor, second: torch.Tensor) -> float:
    return ((first - second).norm() / second.norm()).item()


def largest_difference(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest relative difference. The gradient of no weight is zero, except of what the last of two
    decoder layers adds to image tokens, which no other token reads.
    """
    zero = {name for name, value in expected.items() if value.norm() == 0}
    assert all("deepstack_merger_list.1" in name and not found[name].any() for name in zero)
    return max(relative(found[name], expected[name]) for name in expected.keys() - zero)


def loss_of(method: GroupMethod, logps: torch.Tensor, groups: list[Prompted]) -> torch.Tensor:
    """The mean loss of the lists, of which a method may use a part."""
    losses = []
    parameters = method.Parameters()
    for part, group in zip(logps.split([len(group.responses) for group in groups]), groups, strict=True):
        rewards = torch.linspace(0.9, 0.1, len(part))
        chosen = method.responses(rewards.tolist(), parameters)
        lengths = torch.tensor([len(response) for response in group.responses])
        used = part[chosen]
        losses.append(method.loss(Group(used, used.detach() * 0.9, lengths[chosen], rewards[chosen]), parameters))
    return torch.stack(losses).mean()


def perpo(logps: torch.Tensor, groups: list[Prompted]) -> torch.Tensor:
    return loss_of(METHODS["perpo"], logps, groups)


def of_one_view() -> dict[str, GroupMethod]:
    """The methods that read ranked lists under the training view only."""
    lists = {name: method for name, method in METHODS.items() if isinstance(method, GroupMethod)}
    return {
        name: method
        for name, method in sorted(lists.items())
        if method.groups == "lists" and method.views(method.Parameters(), "plain") == ("plain",)
    }


Pack = Callable[[list[Prompted]], Packed]


def test_positions_need_no_weights(setup: Setup, groups: list[Prompted]) -> None:
    """Worker processes compute them without loading the model; building it draws no random numbers."""
    state = torch.get_rng_state()
    bare = outline(setup.block)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.is_meta for parameter in bare.parameters())
    for group in groups:
        assert torch.equal(setup.family.positions(bare, group.prefix), group.positions)


@pytest.fixture(params=["rows", "branches"])
def pack(request: pytest.FixtureRequest, setup: Setup) -> Pack:
    """Both layouts, the second one with the arithmetic of the kernel that GPUs use."""
    if request.param == "rows":
        return lambda groups: packed(groups, setup.family, 0)
    return lambda groups: branched(groups, setup.family)


def test_batches_reach_other_processes(setup: Setup, groups: list[Prompted], pack: Pack) -> None:
    """Of both layouts, as workers send them."""
    batch, file = pack(groups), io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5)
    pickler.dispatch_table = {torch.Tensor: _content}
    pickler.dump(batch)
    assert torch.equal(response_logps(setup.model, pickle.loads(file.getvalue())), response_logps(setup.model, batch))


def test_loss_and_gradients_equal_separate_passes(setup: Setup, groups: list[Prompted]) -> None:
    """Of every method, and with a token budget that splits lists into several rows. Prints the
    largest relative differences (`pytest -rP`).
    """
    methods = of_one_view()
    assert {"perpo", "dpo", "lipo", "sft"} <= methods.keys()
    reference = torch.cat([setup.separate(group) for group in groups])
    losses = {name: loss_of(method, reference, groups) for name, method in methods.items()}
    expected = {name: setup.gradients(loss, last=False) for name, loss in losses.items()}
    layouts = {
        "rows": packed(groups, setup.family, 0),
        "split rows": packed(groups, setup.family, 0, 6),
        "branches": branched(groups, setup.family),
    }
    for layout, batch in layouts.items():
        shared = response_logps(setup.model, batch)
        assert relative(shared, reference) <= TOLERANCE
        for name, method in methods.items():
            loss = loss_of(method, shared, groups)
            found = setup.gradients(loss, last=False)
            assert found.keys() == expected[name].keys()
            assert found.keys() == {n for n, weight in setup.model.named_parameters() if weight.requires_grad}
            of_loss = abs(loss.item() - losses[name].item()) / abs(losses[name].item())
            of_gradient = largest_difference(found, expected[name])
            print(f"{layout:10}  {setup.family.name:16}  {name:14}  loss {of_loss:.1e}  gradient {of_gradient:.1e}")
            assert max(of_loss, of_gradient) <= TOLERANCE


def test_gradient_checkpointing_changes_nothing(setup: Setup, groups: list[Prompted], pack: Pack) -> None:
    batch = pack(groups)
    expected = setup.gradients(perpo(response_logps(setup.model, batch), groups))
    setup.model.train()  # the random models have no dropout
    setup.model.enable_input_require_grads()
    setup.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    layers = [m for name, m in setup.model.named_modules() if re.search(r"language_model\.layers\.\d+$", name)]
    passes: list[torch.nn.Module] = []
    counting = [layer.register_forward_pre_hook(lambda module, _: passes.append(module)) for layer in layers]
    try:
        found = setup.gradients(perpo(response_logps(setup.model, batch), groups))
    finally:
        for hook in counting:
            hook.remove()
        setup.model.gradient_checkpointing_disable()
        setup.model.eval()
    assert sorted(map(layers.index, passes)) == sorted(2 * list(range(len(layers))))  # every layer ran again
    assert largest_difference(found, expected) <= TOLERANCE


def test_blocks_of_logits_change_nothing(setup: Setup, groups: list[Prompted], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = branched(groups, setup.family)
    expected = setup.gradients(perpo(response_logps(setup.model, batch), groups))
    monkeypatch.setattr(shared_prefix, "LOGITS_AT_ONCE", 1)  # one token at a time
    found = setup.gradients(perpo(response_logps(setup.model, batch), groups))
    assert largest_difference(found, expected) <= TOLERANCE


def test_the_first_token_comes_from_the_prefix(setup: Setup, groups: list[Prompted], pack: Pack) -> None:
    """An off-by-one error would be fatal for yes/no answers: shifted positions must give different
    numbers.
    """
    batch = pack(groups)
    right = token_logps(setup.model, batch)
    shifted = Packed(**{**vars(batch), "predictors": (batch.predictors + 1) % len(batch.keep)})
    wrong = token_logps(setup.model, shifted)
    assert (right - wrong).abs().min() > TOLERANCE
    assert (right - wrong).abs().median() > 1e-3


def test_responses_do_not_see_each_other(setup: Setup, pack: Pack) -> None:
    group = setup.group("read", [(112, 112)], [4, 4])
    other = Prompted(group.prefix, group.positions, [group.responses[0], [t + 1 for t in group.responses[1]]])
    first, second = (response_logps(setup.model, pack([g])) for g in (group, other))
    assert first[0].item() == pytest.approx(second[0].item(), rel=1e-6)
    assert abs(first[1].item() - second[1].item()) > 1e-3


def test_logits_exist_for_responses_only(setup: Setup, groups: list[Prompted], pack: Pack) -> None:
    """The LM head gets one row per response token, and none for image or prompt tokens."""
    seen: list[int] = []
    head = setup.model.get_base_model().get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[0]))
    try:
        response_logps(setup.model, pack(groups))
    finally:
        handle.remove()
    assert seen == [sum(len(r) for g in groups for r in g.responses)]


def test_only_the_language_model_attends_by_branches(
    setup: Setup, groups: list[Prompted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call per decoder layer, none in the vision tower, and other passes are those of SDPA, except in
    vision towers of Qwen, which have a kernel of their own.
    """
    assert branch_attention.plain(language_model(setup.model).config)
    before = setup.separate(groups[0])
    batch = branched(groups, setup.family)
    response_logps(setup.model, batch)  # at its first use, the kernel checks itself
    calls: list[torch.nn.Module] = []
    plain = branch_attention._Attention.apply
    monkeypatch.setattr(branch_attention._Attention, "apply", lambda *given: calls.append(given[3]) or plain(*given))
    response_logps(setup.model, batch)
    language = language_model(setup.model)
    assert len(calls) == language.config.num_hidden_layers
    towers = [m for m in setup.model.modules() if isinstance(m, PreTrainedModel) and m.config is not language.config]
    qwen = any(tower.config.model_type in image_attention.TOWERS for tower in towers)
    used = {"sdpa", image_attention.NAME} if qwen else {"sdpa"}
    assert {tower.config._attn_implementation for tower in towers} == used
    after = setup.separate(groups[0])
    assert torch.allclose(after, before, rtol=TOLERANCE, atol=TOLERANCE) if qwen else torch.equal(after, before)
    assert batch.inputs["input_ids"].shape[1] == sum(
        group.positions.shape[1] + sum(max(len(r) - 1, 1) for r in group.responses) for group in groups
    )


def test_the_image_is_encoded_once_per_list(setup: Setup, pack: Pack) -> None:
    group = setup.group("read", [(112, 112)], [2] * 10)
    batch = pack([group])
    assert batch.inputs["input_ids"].shape[0] == 1
    assert torch.equal(batch.inputs["pixel_values"], group.prefix["pixel_values"])
