"""Every mistake in a key of the config is one clear line; names, numbers, seeds and secrets."""

import math
from typing import Any, get_args, get_origin

import pytest
import yaml
from perceptune.contracts import config as blocks
from perceptune.contracts.config import Config
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, names
from perceptune.planning import policies as planning
from pydantic import ValidationError

from .demo_configs import DEMO, edited


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("samplings.n20.temprature", 1.0, "key `samplings.n20.temprature`: unknown key; did you mean `temperature`?"),
        ("samplings.n20.n", 0, "key `samplings.n20.n`: input should be greater than or equal to 1, got `0`"),
        ("samplings.n20.temperature", "hot", "key `samplings.n20.temperature`: input should be a valid number"),
        ("datasets.shapes.train", {"pointing": 3}, "key `datasets.shapes.train.pointing`"),
        ("experiments.perpo.training", "perp", "key `experiments.perpo.training`: `perp` is not defined, expected one of 'dpo', 'perpo'; did you mean `perpo`?"),
        ("experiments.perpo.benchmarks", ["shape-test"], "`shape-test` is not defined, expected one of 'shapes-test'; did you mean `shapes-test`?"),
        ("trainings.perpo.method", "perpoo", "`perpoo` is not defined, expected one of"),
        ("trainings.perpo.parameters", {"betta": 1}, "key `trainings.perpo.parameters.betta`: unknown key; did you mean `beta`?"),
        ("rewards.perception.tasks", {"grounding": "iuo"}, "`iuo` is not defined"),
        ("models.perpo", DEMO["models"]["tiny"], "`perpo` is both a model and an experiment"),
        ("samplings.n20.prompt", "Where is it?", "key `samplings.n20.prompt`: expected text that contains `{question}`, got `Where is it?`"),
        ("benchmarks.shapes-test.prompt", "", "key `benchmarks.shapes-test.prompt`: got ``, expected text that contains `{question}`"),
        ("benchmarks.mm", {"dataset": "shapes", "protocol": "mathvision", "prompt": "Solve it."}, "key `benchmarks.mm.prompt`: got `Solve it.`, expected"),
        ("benchmarks.shapes-test.views", [], "key `benchmarks.shapes-test.views`: tuple should have at least 1 item"),
        ("benchmarks.shapes-test.judge", "j", "key `benchmarks.shapes-test.judge`: `j` is not defined"),
        ("benchmarks.pope", {"dataset": "shapes", "protocol": "popee"}, "key `benchmarks.pope.protocol`: `popee` is not defined, expected one of"),
        ("benchmarks.a", {"dataset": "shapes", "protocol": "amber_generative"}, "key `benchmarks.a.protocol`: `amber_generative` is not defined, expected `protocol: amber` with `variant: generative`"),
        ("benchmarks.g", {"dataset": "shapes", "protocol": "geometry3k_cppo"}, "key `benchmarks.g.protocol`: `geometry3k_cppo` is not defined, expected `protocol: geometry3k` with `variant: cppo`"),
        ("benchmarks.a", {"dataset": "shapes", "protocol": "amber", "variant": "generativ"}, "key `benchmarks.a.variant`: `amber` has no variant `generativ`, expected `discriminative`, `generative`"),
        ("benchmarks.p", {"dataset": "shapes", "protocol": "pope", "variant": "vcd"}, "key `benchmarks.p.variant`: `pope` has no variant `vcd`, expected none"),
        ("benchmarks.g", {"dataset": "shapes", "protocol": "geometry3k"}, "key `benchmarks.g.variant`: `geometry3k` has several variants, expected one of `papo`, `cppo`"),
        ("benchmarks.shapes-test.variant", "papo", "key `benchmarks.shapes-test.variant`: variants need a `protocol`; remove this key"),
        ("benchmarks.mm", {"dataset": "shapes", "protocol": "mmhal", "judge": ""}, "key `benchmarks.mm.judge`: missing, protocol `mmhal` needs a judge"),
        ("datasets.mine", {"kind": "popee", "path": "x"}, "key `datasets.mine.kind`: `popee` is not defined, expected one of"),
        ("datasets.mine", {"kind": "pope", "path": ""}, "key `datasets.mine.path`: string should have at least 1 character"),
        ("datasets.mine", {"kind": "pope", "path": "x", "max_images": 0}, "key `datasets.mine.max_images`: input should be greater than or equal to 1, got `0`"),
        ("models.tiny.family", "lava", "key `models.tiny.family`: `lava` is not defined, expected one of 'auto', 'internvl', "),
        ("trainings.dpo.sharding", "fsdp", "key `trainings.dpo.sharding`: `fsdp` needs several processes, got `devices: 1` and `nodes: 1`"),
        ("trainings.dpo", {"method": "dpo", "devices": 2, "sharding": "fsdp", "quantisation": "nf4"}, "key `trainings.dpo.quantisation`: `nf4` weights are not sharded; remove this key or `sharding`"),
        ("trainings.dpo", {"method": "dpo", "devices": 3, "nodes": 2}, "key `trainings.dpo.batch_size`: 16, expected a multiple of 6, so that 6 processes (`devices` x `nodes`) can share it evenly"),
        ("trainings.dpo.quantisation", "int8", "key `trainings.dpo.quantisation`: input should be 'none' or 'nf4', got `int8`"),
        ("models.tiny.family", "lava", "; did you mean `llava`?"),
        ("models.tiny.pixels", [784, 7840], "key `models.tiny.pixels`: `llava` does not resize images to a pixel budget; remove this key"),
        ("models.tiny", {"path": "m", "family": "qwen3_vl", "pixels": [9, 4]}, "key `models.tiny.pixels`: minimum 9 exceeds maximum 4"),
        ("rehearse", 0, "key `rehearse`: input should be greater than or equal to 1, got `0`"),
        ("rehearse", True, "key `rehearse`: input should be a valid integer, got `True`"),
        ("rehearse", "20", "key `rehearse`: input should be a valid integer, got `'20'`"),
        ("trainings.perpo.learning_rate", "1,0e-6", "got `1,0e-6`; write a decimal point instead of the comma"),
        ("trainings.learning_rate", 1e-6, "key `trainings.learning_rate`: expected keys with values, got `1e-06`; `learning_rate` is a key of a block in `trainings`, expected below the block's name"),
        ("trainings.perpo.learning_rate", math.inf, "key `trainings.perpo.learning_rate`: input should be a finite number, got `inf`"),
        ("trainings.perpo.learning_rate", "nan", "key `trainings.perpo.learning_rate`: input should be a finite number, got `nan`"),
        ("trainings.perpo.parameters", {"beta": math.nan}, "key `trainings.perpo.parameters.beta`: expected a finite number, got `nan`"),
        ("trainings.perpo.parameters", {"beta": [[1]]}, "key `trainings.perpo.parameters.beta`: got `[[1]]`, expected a value or a list of single values"),
        ("trainings.perpo.seed", 2**32, "key `trainings.perpo.seed`: input should be less than or equal to 4294967295, got `4294967296`"),
        ("samplings.n20.seed", -1, "key `samplings.n20.seed`: input should be greater than or equal to 0, got `-1`"),
        ("trainings.perpo.learning_rate", [], "key `trainings.perpo.learning_rate`: got `[]`, expected a value or a list of single values"),
        ("trainings.perpo.parameters", {"beta": []}, "key `trainings.perpo.parameters.beta`: got `[]`"),
        ("trainings.perpo.lora", {"r": []}, "key `trainings.perpo.lora.r`: got `[]`"),
        ("selections.ranked.min_margin", [], "key `selections.ranked.min_margin`: got `[]`"),
        ("experiment", {"perpo": {}}, "key `experiment`: unknown key; did you mean `experiments`?"),
        ("samplings.n20.epochs", 1, "key `samplings.n20.epochs`: unknown key"),
        ("views", {"v": {"type": "noise", "parameters": {"sigma": [1]}}}, "key `views.v.parameters.sigma`: expected a number, text, true, false or null, got `[1]`"),
        ("trainings.perpo.lora", {"parts": []}, "key `trainings.perpo.lora.parts`: tuple should have at least 1 item"),
        ("trainings.perpo.lora", {"parts": "vision"}, "key `trainings.perpo.lora.parts`: expected a list: `[vision]`, got `vision`"),
        ("trainings.perpo.lora", {"parts": ["visoin"]}, "key `trainings.perpo.lora.parts.0`: input should be 'language', 'projector' or 'vision', got `visoin`; did you mean `vision`?"),
        ("trainings.perpo.lora", {"parts": [["vision"]]}, "key `trainings.perpo.lora.parts.0`: input should be 'language', 'projector' or 'vision'"),
        ("trainings.dpo", {"method": "dpo", "quantisation": "nf4", "lora": {"use_dora": True}}, "key `trainings.dpo.lora.use_dora`: the norms of `nf4` weights are not those of the weights that are served; remove this key or `quantisation`"),
        ("trainings.perpo.lora", {"full": ["projector"]}, "key `trainings.perpo.lora.full`: `projector` is not in `parts`"),
        ("trainings.perpo.lora", {"parts": ["projector"], "full": ["projector"]}, "key `trainings.perpo.lora.parts`: all are in `full`, expected another one for the LoRA adapter"),
        ("trainings.perpo.lora", {"parts": ["language", "vision"], "full": ["vision"]}, "key `trainings.perpo.lora.full.0`: input should be 'projector', got `vision`"),
        ("trainings.perpo.lora", {"rr": 1}, "key `trainings.perpo.lora.rr`: unknown key; did you mean `r`?"),
        ("experiments.perpo.benchmarks", "shapes-test", "key `experiments.perpo.benchmarks`: expected a list: `[shapes-test]`, got `shapes-test`"),
        ("benchmarks.shapes-test.views", "blank", "key `benchmarks.shapes-test.views`: expected a list: `[blank]`, got `blank`"),
        ("experiments.perpo.training", 1, "key `experiments.perpo.training`: input should be a valid string, got `1`; write it in quotes"),
        ("experiments.perpo.training", ["dpo", "perpo"], "key `experiments.perpo.training`: input should be a valid string, got `['dpo', 'perpo']`"),
        ("experiments.perpo.selection", {"a": 1}, "key `experiments.perpo.selection`: input should be a valid string"),
        ("trainings.dpo.epochs", b"x", "key `trainings.dpo.epochs`"),
        ("crops", {"c": {"attention_map": "a", "ratios": []}}, "key `crops.c.ratios`: tuple should have at least 1 item"),
        ("filters", {"f": {"margin": [0.2, -0.2]}}, "key `filters.f.margin`: expected the smaller number first, got `[0.2, -0.2]`"),
        ("attention_maps", {"a": {"layers": [26, 7]}}, "key `attention_maps.a.layers`: expected the smaller number first, got `[26, 7]`"),
        ("saliency_maps", {"s": {"path": "m", "layers": [9, 6]}}, "key `saliency_maps.s.layers`: expected the smaller number first, got `[9, 6]`"),
        ("trainings.dpo.limits", {"loss": [2, 1]}, "key `trainings.dpo.limits.loss`: expected the smaller number first, got `[2, 1]`"),
        ("batch_selections", {"b": {"above": 0.99, "below": 0.01}}, "key `batch_selections.b`: `above` 0.99 is not below `below` 0.01"),
        ("datasets.mine", {"kind": "excel", "path": "x.xlsx"}, "'yolo'; `plugins` names folders with your own (docs/plugins.md)"),
        ("datasets.mine", {"kind": "jsonl", "path": "x", "boxes": "xyhw"}, "key `datasets.mine.boxes`: input should be 'xyxy', 'xywh', 'cxcywh' or 'yxyx', got `xyhw`; did you mean `xywh`?"),
        ("datasets.mine", {"kind": "voc", "path": "x", "boxes": "xywh"}, "key `datasets.mine.boxes`: `voc` fixes the order of a box's numbers; remove this key"),
        ("datasets.mine", {"kind": "refer", "path": "x", "boxes": "xyxy"}, "key `datasets.mine.boxes`: `refer` fixes the order"),
        ("datasets.mine", {"kind": "coco", "path": "x", "parameters": {"crowds": True}}, "key `datasets.mine.parameters.crowds`: unknown key; did you mean `crowd`?"),
        ("datasets.mine", {"kind": "voc", "path": "x", "parameters": {"crowd": True}}, "key `datasets.mine.parameters.crowd`: unknown key"),
        ("datasets.mine", {"kind": "jsonl", "path": "x", "parameters": {"unique": True}}, "key `datasets.mine.parameters.unique`: unknown key"),
        ("datasets.mine", {"kind": "yolo", "path": "x", "parameters": {"question": "Where is it?"}}, "key `datasets.mine.parameters.question`: expected text that contains `{category}`, got `Where is it?`"),
        ("datasets.mine", {"kind": "coco", "path": "x", "parameters": {"per": "category", "unique": True}}, "key `datasets.mine.parameters`: `unique` is for `per: object`; remove it or `per: category`"),
        ("datasets.mine", {"kind": "coco", "path": "x", "parameters": {"min_area": 0.5, "max_area": 0.1}}, "key `datasets.mine.parameters`: `min_area` 0.5 is not below `max_area` 0.1"),
        ("datasets.mine", {"kind": "coco", "path": "x", "parameters": {"min_area": 100}}, "key `datasets.mine.parameters.min_area`: input should be less than or equal to 1, got `100`"),
        ("controls", True, "key `controls`: expected keys with values, got `True`"),
        ("trainings.dpo.report_to", "wandb", "key `trainings.dpo.report_to`: expected a list: `[wandb]`, got `wandb`"),
        ("trainings.dpo.report_to", ["tensorbord"], "got `tensorbord`; did you mean `tensorboard`?"),
        ("selections", None, "key `selections`: expected blocks by name (remove the key if there are none), got `None`"),
        ("datasets", ["shapes"], "key `datasets`: expected blocks by name, got `['shapes']`"),
        ("datasets.shapes.train", 100, "key `datasets.shapes.train`: expected keys with values, got `100`"),
        ("rewards.perception.tasks", {"groundin": "iou"}, "got `groundin`; did you mean `grounding`?"),
        ("models.tiny.dtype", "bf16", "key `models.tiny.dtype`: input should be 'float32', 'bfloat16' or 'float16', got `bf16`; did you mean `bfloat16`?"),
        ("dataset_preferences", {"n20": {}}, "config\n  `n20` is both a sampling and a dataset_preference, expected different names"),
        ("exports", {"out": {"experiment": "perp", "format": "trl"}}, "key `exports.out.experiment`: `perp` is not defined, expected one of 'dpo', 'perpo'; did you mean `perpo`?"),
        ("exports", {"out": {"experiment": "perpo@1", "format": "trl"}}, "`perpo@1` is not defined, expected one of 'dpo', 'perpo'; did you mean `perpo`?"),
        ("exports", {"out": {"experiment": "perpo", "format": "tlr"}}, "key `exports.out.format`: `tlr` is not defined, expected one of 'easyr1', 'llama_factory'"),
    ],
)  # fmt: skip
def test_a_mistake_names_key_value_and_what_is_allowed(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(edited(path, value))
    assert expected in str(caught.value)


def numbers_of(kind: type) -> list[tuple[type[blocks.Block], str]]:
    """Every field of every block whose type names `kind`."""
    found = [getattr(blocks, name) for name in blocks.__all__]
    models = [b for b in found if isinstance(b, type) and issubclass(b, blocks.Block)]
    return [(m, key) for m in models for key, field in m.model_fields.items() if kind in types_in(field.annotation)]


def types_in(annotation: Any) -> set[Any]:
    return {annotation}.union(*(types_in(inner) for inner in get_args(annotation)))


@pytest.mark.parametrize(("block", "key"), numbers_of(float), ids=lambda one: getattr(one, "__name__", one))
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_block_takes_infinity_or_nan(block: type[blocks.Block], key: str, value: float) -> None:
    for written in (value, [value], [value, value], {"loss": [value, None]}):
        with pytest.raises(ValidationError) as caught:
            block.model_validate({key: written})
        assert [e for e in caught.value.errors() if e["loc"][0] == key], written


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("method", "view") for name in names(kind)])
def test_no_parameter_takes_infinity_or_nan(kind: str, name: str) -> None:
    parameters = load(kind, name).Parameters
    for key, field in parameters.model_fields.items():
        if float in types_in(field.annotation):
            for value in (math.inf, -math.inf, math.nan):
                with pytest.raises(ValidationError, match=r"finite|greater|less"):
                    parameters.model_validate({key: value})


def test_every_seed_has_32_bits() -> None:
    config = Config.model_json_schema()
    seeds = [block["properties"]["seed"] for block in config["$defs"].values() if "seed" in block.get("properties", {})]
    assert len(seeds) >= 10
    assert {(seed["minimum"], seed["maximum"]) for seed in seeds} == {(0, 2**32 - 1)}


def test_all_mistakes_come_at_once() -> None:
    config = edited("samplings.n20.n", 0)
    config["samplings"]["n20"]["top_p"] = 2
    with pytest.raises(UserError) as caught:
        planning.load(config)
    assert "samplings.n20.n" in str(caught.value)
    assert "samplings.n20.top_p" in str(caught.value)


@pytest.mark.parametrize(
    "section", [name for name, field in Config.model_fields.items() if get_origin(field.annotation) is dict]
)
@pytest.mark.parametrize(
    ("name", "kind"),
    [("no", "true or false"), ("2024", "a number"), ("1.5", "a number"), ("2024-01-31", "a date"), ("null", "null")],
)
def test_names_that_yaml_does_not_read_as_text(section: str, name: str, kind: str) -> None:
    config = yaml.safe_load(yaml.safe_dump(DEMO)) | yaml.safe_load(f"{section}: {{{name}: {{}}}}")
    with pytest.raises(UserError, match=rf"key `{section}\..*`: YAML reads this name as {kind}.*; write it in quotes"):
        planning.load(config)


def test_names_in_quotes_are_text() -> None:
    config = edited("experiments", {"2024": DEMO["experiments"]["dpo"], "no": DEMO["experiments"]["perpo"]})
    assert planning.load(config).policies == ["tiny", "2024", "no"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("models.tiny.path", "hf_" + "a1B2" * 8),
        ("benchmarks.shapes-test.prompt", "sk-" + "x" * 40),
        ("samplings.n20.prompt", "https://me:secret@host/x {question}"),
        ("report.caption", "key AKIA" + "A" * 16),
        ("benchmarks.shapes-test.prompts", ["{question} sk-" + "x" * 40]),
        ("judges", {"j": {"model": "m", "url": "sk-" + "x" * 40}}),  # in the wrong place
        ("judges", {"j": {"model": "m", "api_key": "sk-" + "x" * 40}}),  # under an unknown key
    ],
)
def test_a_secret_in_the_config_is_refused_and_not_repeated(path: str, value: str) -> None:
    with pytest.raises(UserError, match=f"key `{path}.*`: looks like a password or access token") as caught:
        planning.load(edited(path, value))
    assert "x" * 20 not in str(caught.value)
    assert str(value) not in str(caught.value)


def test_a_part_that_the_family_does_not_declare_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    family = type(load("family", "llava"))
    monkeypatch.setattr(family, "lora_targets", {"language": family.lora_targets["language"]})
    planning.load(edited("trainings.perpo.lora", {"parts": ["language"]}))
    with pytest.raises(UserError) as caught:
        planning.load(edited("trainings.perpo.lora", {"parts": ["language", "vision"]}))
    expected = "key `trainings.perpo.lora.parts`: `vision`, but family `llava` of model `tiny` declares only `language`"
    assert expected in str(caught.value)
