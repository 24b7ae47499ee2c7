"""Every family: packed passes equal separate ones, prompts and log-probs equal vLLM's, and which
layers can be trained.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from perceptune.contracts.config import LoraBlock, ModelBlock, TrainingBlock
from perceptune.contracts.errors import UserError
from perceptune.engines.training.shared_prefix import Prompted, branched, packed, token_logps
from perceptune.engines.training.trainer import with_adapter
from perceptune.models.adapters import new_adapter
from perceptune.models.coordinates import resized_sizes
from perceptune.models.loading import OTHER_LAYERS, load_model, load_processor, load_trained, merged_model
from PIL import Image
from transformers.quantizers.quantizers_utils import should_convert_module

from tests.plugins import FAMILIES
from tests.tiny_models import BUILDERS

from .adapters import PARTS, TRAINED, moved, with_random_adapter
from .family_logps import engine_against_trainer

TOLERANCE = 1e-5
"""Largest allowed difference in a token's log-probability, in nats: float32 sums in a different
order.
"""
VLLM_TOLERANCE = 2e-5
"""The same for vLLM, which uses different kernels (1.4e-6 was observed). Positions off by one, or
missing DeepStack features, change 3e-3 or more.
"""


class Setup:
    """A tiny model with a random adapter."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder = BUILDERS[name](folder / "model", 0)
        self.block = ModelBlock(path=str(self.folder), family=name, dtype="float32")
        self.family, self.processor = FAMILIES[name], load_processor(self.block)
        self.model = with_random_adapter(load_model(self.block), self.family)
        self.model.eval()
        self.random = np.random.default_rng(1)

    def prefix(self, question: str, sizes: Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        images = [Image.fromarray(self.random.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
        return self.family.prefix(self.processor, messages(question, len(sizes)), images)

    def group(self, question: str, sizes: Sequence[tuple[int, int]], lengths: Sequence[int]) -> Prompted:
        prefix = self.prefix(question, sizes)
        positions = self.family.positions(self.model.get_base_model(), prefix)  # type: ignore[arg-type]
        return Prompted(prefix, positions, [self.random.integers(20, 250, n).tolist() for n in lengths])

    def separate(self, group: Prompted) -> torch.Tensor:
        """Log-probability of every token of every response, from one plain forward pass per
        response with the model's own positions.
        """
        found = []
        for response in group.responses:
            inputs = dict(group.prefix)
            ids = torch.cat([inputs["input_ids"], torch.tensor([list(response)])], dim=1)
            inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            if "mm_token_type_ids" in inputs:
                room = (0, len(response))
                inputs["mm_token_type_ids"] = torch.nn.functional.pad(inputs["mm_token_type_ids"], room)
            logps = self.model(**inputs).logits[0].log_softmax(-1)
            start = ids.shape[1] - len(response)
            found += [logps[start - 1 + k, token] for k, token in enumerate(response)]
        return torch.stack(found)


def messages(question: str, images: int) -> list[dict[str, Any]]:
    content = [*([{"type": "image", "text": None}] * images), {"type": "text", "text": question}]
    return [{"role": "user", "content": content}]


@pytest.fixture(scope="module", params=sorted(BUILDERS))
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    return Setup(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_pixels_limit_what_the_model_sees_and_what_its_boxes_mean(name: str, tmp_path: Path) -> None:
    folder = BUILDERS[name](tmp_path / "model", 0)
    counted = []
    for pixels in (None, (60_000, 90_000)):
        block = ModelBlock(path=str(folder), family=name, dtype="float32", pixels=pixels)  # type: ignore[arg-type]
        processor, sizes = load_processor(block), np.array([(500, 300), (90, 60)])
        seen = []
        for width, height in sizes:
            prefix = FAMILIES[name].prefix(processor, messages("where?", 1), [Image.new("RGB", (width, height))])
            _, rows, columns = prefix["image_grid_thw"][0].tolist()
            patch = processor.image_processor.patch_size  # type: ignore[attr-defined]
            seen.append((columns * patch, rows * patch))
        assert resized_sizes(block, sizes).tolist() == [list(size) for size in seen]
        counted.append([w * h for w, h in seen])
    assert max(counted[0]) <= 16_384  # the limit in the tiny model folders
    assert all(60_000 <= pixels <= 90_000 for pixels in counted[1])
    merged_model(block, _adapter(name, block, tmp_path), tmp_path / "merged")
    kept = load_processor(ModelBlock(path=str(tmp_path / "merged"), family=name))  # type: ignore[arg-type]
    assert kept.image_processor.size == processor.image_processor.size  # type: ignore[attr-defined]


def _adapter(name: str, block: ModelBlock, folder: Path) -> Path:
    config = LoraConfig(r=2, target_modules=FAMILIES[name].lora_targets["language"])
    get_peft_model(load_model(block), config).save_pretrained(folder / "adapter")
    return folder / "adapter"


def test_every_family_has_a_builder() -> None:
    assert BUILDERS.keys() == FAMILIES.keys() - {"auto"}


def test_packed_passes_equal_separate_ones(setup: Setup) -> None:
    """One pass over prompts with one, one, two and no images; includes one-token answers, which
    only the prefix predicts.
    """
    groups = [
        setup.group("locate the red circle.", [(112, 112)], [1, 6, 1]),
        setup.group("read", [(96, 64)], [3, 1]),
        setup.group("is there a cross?", [(56, 150), (300, 220)], [1, 4]),
        setup.group("yes or no?", [], [1, 2]),
    ]
    separate = torch.cat([setup.separate(group) for group in groups])
    for batch in (packed(groups, setup.family, 0), branched(groups, setup.family)):
        shared = token_logps(setup.model, batch)
        difference = (shared - separate).abs().max().item()
        print(f"packed against separate, {setup.family.name}: {difference:.1e}")
        assert difference <= TOLERANCE
        setup.model.zero_grad()
        shared.sum().backward()
        gradients = {name: p.grad for name, p in setup.model.named_parameters() if p.grad is not None}
        assert gradients.keys() == {name for name, p in setup.model.named_parameters() if p.requires_grad}
        layers = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in gradients}
        layers = {name.partition(".modules_to_save.")[0] for name in layers}
        parts = {p for p, pattern in setup.family.lora_targets.items() if any(re.fullmatch(pattern, n) for n in layers)}
        assert parts == set(TRAINED[setup.family.name].parts)
        zero = {name for name, gradient in gradients.items() if gradient.norm() == 0}
        # what the last of two decoder layers adds to image tokens is read by no other token
        assert all("deepstack_merger_list.1" in name for name in zero)


def test_the_images_matter(setup: Setup) -> None:
    """A different image changes the predictions: the image features reach the right positions."""
    first, other = (setup.group("read", [(96, 64)], [1]) for _ in range(2))
    same = Prompted(other.prefix, other.positions, first.responses)
    shown = [token_logps(setup.model, packed([group], setup.family, 0)).item() for group in (first, same)]
    assert abs(shown[0] - shown[1]) > 1e-4


@pytest.mark.parametrize("sizes", [[], [(112, 112)], [(96, 64)], [(56, 150), (300, 220)], [(448, 336)]])
def test_the_length_of_a_prompt_counts_its_image_tokens(setup: Setup, sizes: list[tuple[int, int]]) -> None:
    images = [Image.new("RGB", size) for size in sizes]
    prompt = messages("locate the red circle.", len(images))
    expanded = setup.family.prefix(setup.processor, prompt, images)["input_ids"].shape[1]
    prepared = [setup.family.prepare_image(image, setup.processor) for image in images]
    tokens = setup.family.prompt_ids(setup.processor, prompt)
    assert setup.family.prompt_length(setup.processor, tokens, prepared) == expanded


def test_the_map_is_made_of_the_first_images_tokens(setup: Setup) -> None:
    prefix = setup.prefix("read", [(150, 100), (64, 96)])
    grids = setup.family.grids(setup.processor, prefix)
    seen, whole = setup.family.image_positions(setup.processor, prefix)
    placeholder = setup.processor.tokenizer.convert_tokens_to_ids(setup.family.placeholder(setup.processor))
    tokens = (prefix["input_ids"][0] == placeholder).nonzero()[:, 0]
    one = setup.prefix("read", [(150, 100)])
    assert len(grids) == 2
    assert len(seen) == grids[0][0] * grids[0][1]
    assert set(seen.tolist()) <= set(whole.tolist())
    assert torch.equal(whole, tokens[: (one["input_ids"] == placeholder).sum()])


def test_four_bits_are_for_the_decoder_layers_only(setup: Setup) -> None:
    """The names that `from_pretrained` gives to the quantiser; what is trained in full is not among them."""
    model = load_model(setup.block)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    chosen = {name for name in linear if should_convert_module(name, [OTHER_LAYERS])}
    assert chosen == {name for name in linear if ".language_model.layers." in name}
    assert {"lm_head"} < linear - chosen
    language, *others = (re.compile(setup.family.lora_targets[part]) for part in PARTS)
    assert {name for name in linear if language.fullmatch(name)} == chosen
    assert not any(one.fullmatch(name) for one in others for name in chosen)


def adapted_layers(setup: Setup, *names: str, **lora: Any) -> set[str]:
    """Layers that get an adapter for these `target_modules` of a training block."""
    block = TrainingBlock(method="perpo", lora=LoraBlock(r=2, alpha=2, target_modules=names, **lora))
    adapted = with_adapter(load_model(setup.block), block, setup.family, setup.block.path)
    return {n.removeprefix("base_model.model.") for n, m in adapted.named_modules() if hasattr(m, "lora_A")}


def test_named_layers_are_those_of_the_parts_only(setup: Setup) -> None:
    """LLaVA's vision towers also have `q_proj`, and Qwen2.5-VL's has `gate_proj`."""
    prefix, names = "model.language_model.layers.", ("self_attn.q_proj", "mlp.gate_proj")
    language = {f"{prefix}{layer}.{name}" for layer in (0, 1) for name in names}
    assert adapted_layers(setup, "q_proj", "mlp.gate_proj") == language
    everywhere = adapted_layers(setup, "q_proj", "mlp.gate_proj", parts=PARTS) - language
    seen = {name.rpartition(".")[2] for name in everywhere}
    if setup.family.name == "qwen2_5_vl":
        assert everywhere == {f"model.visual.blocks.{layer}.mlp.gate_proj" for layer in (0, 1)}
    else:
        assert seen == ({"q_proj"} if hasattr(setup.model.get_base_model().model, "vision_tower") else set())


def test_every_linear_layer_is_in_one_part_or_of_no_use(setup: Setup) -> None:
    """The head is in none, nor is the last layer of a vision tower whose features are read before."""
    model = load_model(setup.block)
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    parts = [{n for n in linear if re.fullmatch(pattern, n)} for pattern in setup.family.lora_targets.values()]
    assert sum(map(len, parts)) == len(linear - {"lm_head"}) == len(set.union(*parts))
    unused = linear - {"lm_head"} - adapted_layers(setup, parts=PARTS)
    read_before = setup.family.name in ("llava", "llava_next")
    assert {name.rpartition(".layers.1.")[0] for name in unused} == (
        {"model.vision_tower.encoder"} if read_before else set()
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_an_adapter_is_the_base_model_and_then_more_than_16_bits_hold(
    setup: Setup, tmp_path: Path, dtype: torch.dtype
) -> None:
    """Layers that are trained in full are multiplied in float32, which rounds differently."""
    lora = TRAINED[setup.family.name]
    base = load_model(setup.block, dtype).eval()
    batch = packed([setup.group("read", [(96, 64)], [3, 4])], setup.family, 0)
    with torch.inference_mode():
        expected = token_logps(base, batch)
    adapted = new_adapter(load_model(setup.block, dtype), lora, setup.family).eval()
    with torch.inference_mode():
        torch.testing.assert_close(token_logps(adapted, batch), expected, rtol=0, atol=2e-2 if lora.full else 0)
        with adapted.disable_adapter():
            assert torch.equal(token_logps(adapted, batch), expected)
    moved(adapted, 1e-5).save_pretrained(tmp_path)
    loaded = dict(load_trained(load_model(setup.block, dtype), tmp_path).named_parameters())
    for name, weight in adapted.named_parameters():
        assert loaded[name].requires_grad == weight.requires_grad
        assert torch.equal(loaded[name], weight), name
        assert weight.dtype == (torch.float32 if weight.requires_grad else dtype)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("llava", {"fc1": "vision_tower.encoder.layers.0.mlp.fc1", "linear_1": "multi_modal_projector.linear_1"}),
        ("qwen2_5_vl", {"qkv": "visual.blocks.0.attn.qkv", "mlp.0": "visual.merger.mlp.0"}),
    ],
)
def test_layers_outside_the_parts_are_refused(name: str, layers: dict[str, str], tmp_path: Path) -> None:
    setup = Setup(name, tmp_path)
    for layer, where in layers.items():
        with pytest.raises(UserError) as refused:
            adapted_layers(setup, "q_proj", layer)
        message = str(refused.value)
        assert f"key `lora.target_modules`: `{layer}` matches `model.{where}`" in message
        assert "expected one of down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in message
    with pytest.raises(
        UserError, match=r"`q_porj` matches no layer of `language`, expected one of (.|\n)*did you mean `q_proj`"
    ):
        adapted_layers(setup, "q_porj")
    with pytest.raises(UserError, match=r"`lm_head` matches `lm_head`, which is not a linear layer of `language`"):
        adapted_layers(setup, "lm_head")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_vllm_sees_the_same_prompts_and_gives_the_same_log_probabilities(name: str, tmp_path: Path) -> None:
    """For a model with a merged adapter, so that the weights written for serving are the trained
    ones.
    """
    setup = Setup(name, tmp_path)
    setup.model.save_pretrained(tmp_path / "adapter")
    found = engine_against_trainer(name, setup.folder, tmp_path / "adapter")
    print(f"vLLM against transformers, {name}: {found}")
    assert found["prompts_equal"], found
    assert found["lengths_equal"], found
    assert found["worst"] <= VLLM_TOLERANCE, found
    assert found["tokens"] >= 40  # sixteen answers of one to eight tokens
    assert found["distinct"] > 5
