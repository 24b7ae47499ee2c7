"""Family `auto` on architectures without a family of their own: what it reads from their processors,
and that both layouts of training equal separate passes where they are used.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from perceptune.contracts.config import LoraBlock, ModelBlock
from perceptune.contracts.errors import UserError
from perceptune.engines.probing import compare_layouts, sliding_window
from perceptune.engines.training.branch_attention import plain
from perceptune.engines.training.separate_sequences import separated
from perceptune.engines.training.shared_prefix import Packed, Prompted, branched, packed, response_logps
from perceptune.models.adapters import new_adapter
from perceptune.models.families.auto import Auto
from perceptune.models.families.family import family_of
from perceptune.models.loading import load_model, load_processor
from perceptune.models.placement import language_model
from perceptune.planning.model_folders import adapter_parameters
from PIL import Image
from transformers import AutoProcessor

from tests.tiny_models import OTHERS

from .adapters import moved
from .family_logps import engine_against_trainer
from .test_shared_prefix import TOLERANCE, Setup, perpo, relative

SHARING = ("glm4v", "idefics3", "mistral3", "qwen3_vl_moe")
"""Models whose prompts are causal; the others need separate sequences."""
VLLM_TOLERANCE = 1e-4
"""Largest allowed difference from vLLM in a token's log-probability, in nats: these weights are larger
than those of other tiny models."""
ANSWER_TYPE = {"paligemma": 1}
"""Type of generated tokens in `token_type_ids`; 0 for other models."""
FIRST = {
    "gemma3": ("<start_of_image>", "<image_soft_token>", "<end_of_image>"),
    "glm4v": ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>"),
    "idefics3": ("<fake_token_around_image>", "<row_1_col_1>", "<image>"),
    "mistral3": ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
    "paligemma": ("<image>",),
    "qwen3_vl_moe": ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>"),
}
"""The first special tokens that an image becomes."""


class AutoSetup(Setup):
    """A tiny model with a LoRA adapter whose update is non-zero."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.block = ModelBlock(path=str(OTHERS[name](folder, 0)), family="auto", dtype="float32")
        self.family, self.processor = family_of(self.block), load_processor(self.block)
        self.model = moved(new_adapter(load_model(self.block), LoraBlock(r=4, alpha=8), self.family))
        self.model.eval()
        self.random = np.random.default_rng(1)
        self.answer_type = ANSWER_TYPE.get(name, 0)

    def groups(self) -> list[Prompted]:
        """Answers of one to nine tokens, images of different shapes, one prompt with two of them."""
        several = [(56, 112), (112, 70)][: 1 if self.name == "paligemma" else 2]
        return [
            self.group("locate the red circle.", [(112, 112)], [1, 9, 4, 1]),
            self.group("read", [(120, 80)], [3, 2]),
            self.group("is there a cross? look twice.", several, [1, 5, 7]),
        ]


@pytest.fixture(scope="module", params=sorted(OTHERS))
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AutoSetup:
    return AutoSetup(request.param, tmp_path_factory.mktemp(request.param))


def differences(setup: AutoSetup, groups: Sequence[Prompted], batch: Packed) -> tuple[float, float]:
    """Largest relative difference in log-probabilities and in gradients from separate passes."""
    reference = torch.cat([setup.separate(group) for group in groups])
    expected = setup.gradients(perpo(reference, list(groups)))
    shared = response_logps(setup.model, batch)
    found = setup.gradients(perpo(shared, list(groups)))
    assert found.keys() == expected.keys()
    assert min(value.norm().item() for value in expected.values()) > 0
    return relative(shared, reference), max(relative(found[name], expected[name]) for name in found)


def test_separate_sequences_equal_separate_passes(setup: AutoSetup) -> None:
    groups = setup.groups()
    batch = separated(groups, setup.family, setup.model.get_base_model(), 0)  # type: ignore[arg-type]
    found = differences(setup, groups, batch)
    print(f"separate sequences, {setup.name}: {found}")
    assert max(found) <= TOLERANCE


def test_shared_prefixes_equal_separate_passes_of_causal_models(setup: AutoSetup) -> None:
    groups = setup.groups()
    batches = [packed(groups, setup.family, 0), packed(groups, setup.family, 0, 6)]
    if plain(language_model(setup.model).config):
        batches.append(branched(groups, setup.family))
    for batch in batches:
        found = differences(setup, groups, batch)
        print(f"shared prefix, {setup.name}: {found}")
        if setup.name in SHARING:
            assert max(found) <= TOLERANCE
        else:  # the prompt's tokens see later ones
            assert max(found) > 1e-2


def test_image_tokens_come_from_the_processor(setup: AutoSetup) -> None:
    setup.family.check(setup.processor)
    first, found = FIRST[setup.name], setup.family.placeholders(setup.processor)
    assert {*first} <= {*found}
    for sizes in ([(112, 112)], [(96, 64)], [(300, 120)]):
        prompt = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "read the text."}]}]
        images = [Image.new("RGB", size) for size in sizes]
        whole = setup.family.prefix(setup.processor, prompt, images)["input_ids"].shape[1]
        tokens = setup.family.prompt_ids(setup.processor, prompt)
        assert setup.family.prompt_length(setup.processor, tokens, images) == whole
    assert not {setup.processor.tokenizer.eos_token, setup.processor.tokenizer.bos_token} & {*found}


def test_answers_end_as_in_the_chat_template(setup: AutoSetup) -> None:
    tokenizer = setup.processor.tokenizer
    written = tokenizer.decode(setup.family.answer_ids(setup.processor, "red"))
    expected = {"gemma3": "red<end_of_turn>", "idefics3": " red<end_of_utterance>", "glm4v": "red<|im_end|>"}
    assert written == expected.get(setup.name, "red<|im_end|>")


def test_the_decoders_linear_layers_are_adapted(setup: AutoSetup) -> None:
    """All of them; a mixture's experts are no linear layers, and its router is none that can be merged."""
    decoder = language_model(setup.model)
    linear = {name for name, module in decoder.named_modules() if type(module) is torch.nn.Linear}
    adapted = {name for name, module in decoder.named_modules() if hasattr(module, "lora_A")}
    assert {name.removesuffix(".base_layer") for name in linear if ".lora_" not in name} == adapted
    everywhere = {name for name, module in setup.model.named_modules() if hasattr(module, "lora_A")}
    assert len(everywhere) == len(adapted) > 0
    # as planned from the headers of the weights
    trained = sum(p.numel() for name, p in setup.model.named_parameters() if "lora_" in name)
    assert adapter_parameters(setup.block, LoraBlock(r=4, alpha=8)) == trained


def test_a_probe_finds_the_layout_that_generation_agrees_with(setup: AutoSetup) -> None:
    model = setup.model.get_base_model()
    shared, alone = compare_layouts(model, setup.family, setup.processor, 512)  # type: ignore[arg-type]
    print(f"probe, {setup.name}: {shared} {alone}")
    assert alone.agrees
    assert shared.agrees == (setup.name in SHARING)
    assert shared.agrees or str(shared.problem).startswith("log-probs differ by up to ")
    assert sliding_window(model) == {"gemma3": 64}.get(setup.name)  # type: ignore[arg-type]


def test_wrong_positions_are_found_in_both_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = AutoSetup("glm4v", tmp_path)
    monkeypatch.setattr(
        Auto, "positions", lambda _, __, prefix: torch.arange(prefix["input_ids"].shape[1]).expand(3, -1)
    )
    model = setup.model.get_base_model()
    for found in compare_layouts(model, setup.family, setup.processor, 512):  # type: ignore[arg-type]
        assert str(found.problem).endswith(" from those of generation, expected at most 0.001")


def test_a_window_or_a_refused_mask_needs_separate_sequences(tmp_path: Path) -> None:
    setup = AutoSetup("mistral3", tmp_path)
    model = setup.model.get_base_model()
    model.config.text_config.sliding_window = 256  # longer than the probe's prompts
    shared, alone = compare_layouts(model, setup.family, setup.processor, 512)  # type: ignore[arg-type]
    assert shared.problem == "attention sees the last 256 tokens only, fewer than `max_model_len: 512`"
    assert alone.agrees
    assert compare_layouts(model, setup.family, setup.processor, 256)[0].agrees  # type: ignore[arg-type]

    def refuse(_: torch.nn.Module, __: object, inputs: dict[str, torch.Tensor]) -> None:
        if inputs.get("attention_mask", torch.ones(1, 1)).dim() == 4:
            raise ValueError("only masks of two dimensions\nare supported")

    model.register_forward_pre_hook(refuse, with_kwargs=True)
    shared, alone = compare_layouts(model, setup.family, setup.processor, 256)  # type: ignore[arg-type]
    assert shared.problem == "ValueError: only masks of two dimensions"
    assert shared.found is None
    assert alone.agrees


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "it has no chat template"),
        ("{{ messages[0]['content'][-1]['text'] }}", "its chat template writes no placeholder for an image"),
        ("{{ messages[0]['content'] + 1 }}", "its processor cannot encode a question with an image: TypeError: "),
    ],
)
def test_a_processor_that_is_not_understood_is_refused_in_one_line(
    template: str | None, expected: str, tmp_path: Path
) -> None:
    setup = AutoSetup("idefics3", tmp_path)
    setup.processor.chat_template = setup.processor.tokenizer.chat_template = template
    with pytest.raises(UserError) as refused:
        setup.family.check(setup.processor)
    first = str(refused.value).splitlines()[0]
    assert first.startswith(
        f"error: model folder `{setup.block.path}`: family `auto` cannot use it, because {expected}"
    )


def test_a_processor_whose_package_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SmolVLM's needs num2words, for example."""

    def missing(*_: object, **__: object) -> None:
        raise ImportError("Package `num2words` is required to run SmolVLM processor.")

    monkeypatch.setattr(AutoProcessor, "from_pretrained", missing)
    with pytest.raises(
        UserError, match=f"processor of model folder `{tmp_path}` cannot be loaded: Package `num2words`"
    ):
        load_processor(ModelBlock(path=str(tmp_path), family="auto"))


@pytest.mark.extended
@pytest.mark.parametrize("name", SHARING)
def test_vllm_sees_the_same_prompts_and_gives_the_same_log_probabilities(name: str, tmp_path: Path) -> None:
    """For a model with a merged adapter, also on prompts with two images or none."""
    setup = AutoSetup(name, tmp_path / "model")
    setup.model.save_pretrained(tmp_path / "adapter")
    found = engine_against_trainer("auto", Path(setup.block.path), tmp_path / "adapter")
    print(f"vLLM against transformers, {name}: {found}")
    assert found["prompts_equal"], found
    assert found["lengths_equal"], found
    assert found["worst"] <= VLLM_TOLERANCE, found
    assert found["tokens"] >= 40
