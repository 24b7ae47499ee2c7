"""Config: every mistake is one clear line; sweeps and references resolve."""

import copy
import math
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
import yaml
from perceptune.contracts import config as blocks
from perceptune.contracts.config import Config
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, names
from perceptune.core.methods.method import Stored
from perceptune.planning import policies as planning
from perceptune.planning.benchmarks import benchmark_settings
from perceptune.planning.jobs.evaluation import noise_levels
from perceptune.planning.rules import job_of
from perceptune.planning.views import saliency_tables, view_blocks, views_trained
from pydantic import ValidationError

from tests.shipped import CONFIGS, raw_of

ROOT = Path(__file__).parents[2]
DEMO: dict[str, Any] = yaml.safe_load((ROOT / "config/config.yaml").read_text())


def edited(path: str, value: Any, base: dict[str, Any] = DEMO) -> dict[str, Any]:
    config = copy.deepcopy(base)
    *outer, last = path.split(".")
    place = config
    for key in outer:
        place = place[key]
    place[last] = value
    return config


@pytest.mark.parametrize("file", CONFIGS, ids=lambda f: f.name)
def test_every_shipped_config_is_valid(file: Path) -> None:
    assert planning.load(raw_of(file)).policies


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


def test_lists_are_sweeps_in_all_combinations() -> None:
    config = edited("trainings.perpo.parameters", {"beta": [0.05, 0.1], "gamma": [0, 1]})
    config["selections"]["ranked"]["min_margin"] = [0.2, 0.6]
    plan = planning.load(config)
    names = [p for p in plan.policies if p.startswith("perpo")]
    assert len(names) == 2 * 2 * 2
    name = "perpo-min_margin_0.2-beta_0.05-gamma_1"
    assert plan.training(name).parameters == {"beta": 0.05, "gamma": 1}
    assert plan.config.selections[plan.config.experiments[name].selection].min_margin == 0.2
    assert plan.samples(name)["sampling"] == "n20"  # the samples are shared


def test_trackers_are_no_sweep_and_not_part_of_the_result() -> None:
    plan = planning.load(edited("trainings.dpo.report_to", ["tensorboard", "wandb"]))
    assert plan.policies == ["tiny", "dpo", "perpo"]
    assert plan.training("dpo").report_to == ("tensorboard", "wandb")
    assert planning.tracked(plan.training("dpo")) == planning.tracked(planning.load(DEMO).training("dpo"))


def test_untracked_settings_are_not_part_of_the_result() -> None:
    plan = planning.load(edited("trainings.perpo.micro_batch_size", 2))
    assert planning.tracked(plan.training("perpo")) == planning.tracked(planning.load(DEMO).training("perpo"))


def test_a_missing_model_folder_is_named(tmp_path: Path) -> None:
    plan = planning.load(edited("models.tiny.path", str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match=r"nowhere`: `config\.json` not found"):
        plan.model_settings("perpo")


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


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], "`config.json` not found"),
        (["config.json"], "no `*.safetensors` weights found; other formats can run code on loading"),
        (
            ["config.json", "pytorch_model.bin"],
            "no `*.safetensors` weights found; other formats can run code on loading",
        ),
    ],
)
def test_only_safetensors_are_weights(tmp_path: Path, files: list[str], expected: str) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError) as caught:
        planning.load(edited("models.tiny.path", str(tmp_path))).model_settings("tiny")
    assert expected in str(caught.value)


def test_a_policy_answers_benchmarks_in_the_order_of_the_config() -> None:
    config = edited("benchmarks.more", DEMO["benchmarks"]["shapes-test"])
    config["experiments"]["dpo"] = {**config["experiments"]["dpo"], "benchmarks": ["more", "shapes-test"]}
    plan = planning.load(config)
    assert plan.benchmarks("tiny") == plan.benchmarks("dpo") == ["shapes-test", "more"]
    assert plan.benchmarks("perpo") == ["shapes-test"]


P2DPO: dict[str, Any] = yaml.safe_load((ROOT / "config/demo-p2dpo.yaml").read_text())


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("views.noisy.type", "nois", "key `views.noisy.type`: `nois` is not defined, expected one of"),
        ("views.noisy.parameters", {"sigmma": 1}, "key `views.noisy.parameters.sigmma`: unknown key; did you mean `sigma`?"),
        ("views.noisy.crop", "salient", "key `views.noisy.crop`: `noise` does not use a crop, got `salient`"),
        ("views.enhanced.crop", None, "key `views.enhanced.crop`: `enhanced` needs a crop, got `None`"),
        ("views.blank", {"type": "blank"}, "view `blank` is built in, expected another name"),
        ("crops.salient.attention_map", "first", "key `crops.salient.attention_map`: `first` is not defined"),
        ("filters.central.clip_score", "vit", "key `filters.central.clip_score`: `vit` is not defined"),
        ("benchmarks.shapes-p2-test.views", ["original", "noise-0.3"], "key `benchmarks.shapes-p2-test.views`: `noise-0.3` is not defined"),
        ("benchmarks.shapes-p2-test.attention_map", "x", "key `benchmarks.shapes-p2-test.attention_map`: `x` is not defined"),
        ("pair_generations.self-made.focus.chosen.view", "noisy", "key `pair_generations.self-made.focus.chosen.view`: `noisy`, expected a view with a crop"),
        ("pair_generations.self-made.robust.rejected.view", "enhanced", "key `pair_generations.self-made.robust.rejected.view`: `enhanced`, expected a view without a crop"),
        ("pair_generations.self-made", {}, "key `pair_generations.self-made`: found neither `focus` nor `robust`, expected at least one"),
        ("pair_generations.n8", P2DPO["pair_generations"]["self-made"], "`n8` is both a sampling and a pair_generation"),
        ("trainings.dpo.view", "enhanced", "key `trainings.dpo.view`: `enhanced` needs a crop; ranked lists have none, crops are available only for pairs"),
        ("experiments.p2dpo.training", "dpo", "key `experiments.p2dpo`: method `dpo` learns from lists, expected `sampling`, `reward` and `selection`"),
        ("experiments.dpo.training", "p2dpo", "key `experiments.dpo`: method `p2dpo` learns from pairs, expected `pair_generation` and `filter`"),
        ("experiments.dpo.pair_generation", "self-made", "has `sampling`, `reward`, `selection`, `pair_generation`, expected either `sampling`, `reward` and `selection`, or `dataset_preference`, or `pair_generation` and `filter`, or `rollout`, `reward` and `batch_selection`"),
        ("experiments.p2dpo.filter", None, "has `pair_generation`, expected either"),
    ],
)  # fmt: skip
def test_incompatible_blocks_of_pairs(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(edited(path, value, P2DPO))
    assert expected in str(caught.value)


def test_an_ablation_needs_fewer_stored_log_probs() -> None:
    plan = planning.load(P2DPO)
    views = {e: [stored.view for stored in plan.stored_logprobs(e)] for e in plan.config.experiments}
    assert views == {
        "dpo": ["original"],
        "p2dpo": ["original", "enhanced", "degraded", "noise"],
        "p2dpo-static": ["original", "enhanced", "degraded", "noise"],
        "p2dpo-no-focus": ["noise"],
        "p2dpo-no-robust": ["original", "enhanced", "degraded"],
        "p2dpo-no-calibration": ["original", "noise"],
    }
    noise = Stored("reference", "noise")
    four_bits = planning.load(edited("trainings.p2dpo.quantisation", "nf4", P2DPO)).stored_logprobs("p2dpo")[noise]
    assert four_bits == plan.stored_logprobs("p2dpo")[noise].replace("@noise", "@noise~nf4")  # of another base model
    assert plan.stored_logprobs("p2dpo")[noise] == plan.stored_logprobs("p2dpo-no-focus")[noise]  # the same file


def test_noise_levels_are_those_of_the_benchmarks() -> None:
    levels = noise_levels(planning.load(P2DPO))
    assert levels == {"original": 0.0, "noise-0.05": 0.05, "noise-0.1": 0.1, "noise-0.2": 0.2, "noise-0.4": 0.4}
    assert noise_levels(planning.load(DEMO)) == {}


def test_a_part_that_the_family_does_not_declare_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    family = type(load("family", "llava"))
    monkeypatch.setattr(family, "lora_targets", {"language": family.lora_targets["language"]})
    planning.load(edited("trainings.perpo.lora", {"parts": ["language"]}))
    with pytest.raises(UserError) as caught:
        planning.load(edited("trainings.perpo.lora", {"parts": ["language", "vision"]}))
    expected = "key `trainings.perpo.lora.parts`: `vision`, but family `llava` of model `tiny` declares only `language`"
    assert expected in str(caught.value)


ROUNDS: dict[str, Any] = yaml.safe_load((ROOT / "config/demo-rounds.yaml").read_text())


def test_every_round_is_a_policy_that_learns_from_the_previous_one() -> None:
    plan = planning.load(ROUNDS)
    assert plan.rounds("grpo") == ["grpo@1", "grpo@2", "grpo@3", "grpo@4"]
    assert [plan.behaviour_policy(policy) for policy in plan.rounds("grpo")] == ["tiny", "grpo@1", "grpo@2", "grpo@3"]
    assert [plan.answered_round(policy) for policy in ("tiny", "grpo@1", "grpo@3")] == [1, 2, 4]
    assert plan.base("cppo@3") == "tiny"
    assert plan.policies == ["tiny", *(policy for e in ("grpo", "papo_g", "cppo") for policy in plan.rounds(e))]


def test_methods_share_the_answers_of_the_first_round_only() -> None:
    plan = planning.load(ROUNDS)
    first = {plan.round_responses(f"{e}@1") for e in ("grpo", "papo_g", "cppo")}
    assert len(first) == 1
    assert len({plan.preferences(f"{e}@1") for e in ("grpo", "papo_g", "cppo")}) == 1
    assert len({plan.round_responses(f"{e}@2") for e in ("grpo", "papo_g", "cppo")}) == 3
    assert len(set(plan.stored_logprobs("papo_g@2").values())) == 1  # one table, so that the model is loaded once


def test_the_number_of_rounds_is_no_setting_of_any_of_them() -> None:
    more = copy.deepcopy(ROUNDS)
    more["experiments"]["grpo"]["rounds"] = 7
    ours, theirs = planning.load(ROUNDS), planning.load(more)
    for policy in ours.rounds("grpo"):
        assert ours.training(policy) == theirs.training(policy)
        assert ours.stored_logprobs(policy) == theirs.stored_logprobs(policy)
    assert benchmark_settings(ours, "grpo@4") == benchmark_settings(theirs, "grpo@4")


def test_only_some_rounds_are_tested_and_always_the_last() -> None:
    config = copy.deepcopy(ROUNDS)
    config["experiments"]["grpo"] |= {"rounds": 5, "evaluate_every": 2}
    plan = planning.load(config)
    assert plan.tested("grpo") == ["grpo@2", "grpo@4", "grpo@5"]
    assert len([policy for policy in plan.trained if policy.startswith("grpo@")]) == 5


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("rollouts.g8.temperature", 0.7, "key `rollouts.g8`: temperature 0.7, expected 1: probability ratios assume the sampling distribution"),
        ("exports", {"out": {"experiment": "grpo@5", "format": "trl"}}, "`grpo@5` is not defined, expected one of 'cppo', 'grpo', 'grpo@1', 'grpo@4', 'papo_g'"),
        ("exports", {"out": {"experiment": "grpo@01", "format": "trl"}}, "`grpo@01` is not defined, expected one of"),
        ("rollouts.g8.n", 1, "key `rollouts.g8.n`: input should be greater than or equal to 2, got `1`"),
        ("rollouts.g8.view", "blank", "key `experiments.grpo`: samples under view `blank` but trains under `original`, expected the same"),
        ("trainings.grpo.scheduler", "cosine", "key `trainings.grpo.scheduler`: expected `scheduler: constant` in rounds"),
        ("trainings.grpo.warmup_ratio", 0.1, "key `trainings.grpo.warmup_ratio`: expected `warmup_ratio: 0` in rounds"),
        ("trainings.grpo.lora.dropout", 0.1, "key `trainings.grpo.lora.dropout`: expected `lora.dropout: 0` in rounds"),
        ("trainings.grpo.limits", {"old_kll": [None, 1]}, "key `trainings.grpo.limits.old_kll`: `old_kll` is not defined"),
        ("trainings.grpo.limits", {"perception_kl": [None, 1]}, "`perception_kl` is not defined"),
        ("trainings.papo_g.parameters", {"mask": "maskd"}, "key `trainings.papo_g.parameters.mask`: view `maskd` is not defined; did you mean `masked`?"),
        ("trainings.papo_g.parameters", {"mask": "maskd", "gamma": 0}, "key `trainings.papo_g.parameters.mask`: view `maskd` is not defined; did you mean `masked`?"),
        ("trainings.papo_g.parameters", {"mask": "original"}, "key `trainings.papo_g.parameters.mask`: `original` is the training view, expected a different view"),
        ("views.masked", {"type": "noise", "parameters": {"side": 64}}, "key `trainings.papo_g`: view `masked` (`noise`) may change the image size, expected a view that keeps it"),
        ("views.removing", {"choice": ["preserving"]}, "key `views.removing.choice`: `preserving` has a `choice` of its own, expected views with a `type`"),
        ("views.removing", {"choice": ["cover"]}, "key `views.removing.choice`: `cover` is not defined"),
        ("views.removing", {"type": "zoom", "choice": ["covered"]}, "expected either `type` or `choice`"),
        ("experiments.grpo.rounds", None, "`rounds` and `rollout` go together"),
        ("experiments.grpo.batch_selection", None, "has `reward`, `rollout`, expected either"),
        ("experiments.grpo.batch_selection", "al", "key `experiments.grpo.batch_selection`: `al` is not defined, expected one of 'all'"),
        ("trainings.grpo.method", "dpo", "key `experiments.grpo`: method `dpo` learns from lists, expected `sampling`, `reward` and `selection`"),
        ("rollouts.g8.questions", 0, "key `rollouts.g8.questions`: input should be greater"),
    ],
)  # fmt: skip
def test_incompatible_blocks_of_rounds(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(edited(path, value, ROUNDS))
    assert expected in str(caught.value)


def with_semantic_mask(**saliency: Any) -> dict[str, Any]:
    config = copy.deepcopy(ROUNDS)
    config["saliency_maps"] = {"dino": {"path": "dino", **saliency}}
    config["views"]["hidden"] = {"type": "semantic", "parameters": {"share": 0.4}, "saliency_map": "dino"}
    config["trainings"]["papo_g"]["parameters"]["mask"] = "hidden"
    return config


def test_a_saliency_map_is_independent_of_policies_and_goes_where_a_view_needs_it() -> None:
    config = with_semantic_mask()
    config["views"]["either"] = {"choice": ["masked", "hidden"]}
    plan = planning.load(config)
    table = "<results>/saliency/shapes-rounds/dino.parquet"
    views = {e: views_trained(plan, f"{e}@2") for e in ("grpo", "papo_g")}
    assert (
        saliency_tables(plan, "shapes-rounds", views["papo_g"])
        == saliency_tables(plan, "shapes-rounds", ["either"])
        == {"dino": table}
    )
    assert saliency_tables(plan, "shapes-rounds", views["grpo"]) == {}
    assert "perceptune.core.views.semantic" in job_of(plan, "train_round", {"experiment": "papo_g@1"}).modules
    assert "perceptune.core.views.semantic" not in job_of(plan, "train_round", {"experiment": "cppo@1"}).modules
    for split in ("train", "test"):
        config["saliency_maps"][split] = {"path": "dino", "split": split}
    config["views"] |= {"tested": {"type": "semantic", "saliency_map": "test"}}
    config["benchmarks"]["shapes-rounds-test"]["views"] = ["original", "tested"]
    asked = job_of(planning.load(config), "plan_benchmarks", {"policy": "papo_g@4"}).inputs["saliencies"]
    assert asked == ["<results>/saliency/shapes-rounds/test.parquet"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("views.hidden.saliency_map", "dyno", "key `views.hidden.saliency_map`: `dyno` is not defined, expected one of 'dino'; did you mean `dino`?"),
        ("views.hidden.saliency_map", None, "key `views.hidden.saliency_map`: `semantic` needs a saliency map, got `None`"),
        ("views.masked.saliency_map", "dino", "key `views.masked.saliency_map`: `masked` does not use a saliency map, got `dino`"),
        ("views.hidden.crop", "salient", "key `views.hidden.crop`: `salient` is not defined"),
        ("views.hidden.parameters", {"share": 1.5}, "key `views.hidden.parameters.share`: input should be less than or equal to 1, got `1.5`"),
        ("views.hidden.parameters", {"cells": [[1]]}, "key `views.hidden.parameters.cells"),
        ("views.removing", {"choice": ["hidden"], "saliency_map": "dino"}, "`parameters`, `crop` and `saliency_map` cannot be combined with `choice`"),
        ("saliency_maps.dino.layers", [6], "key `saliency_maps.dino.layers"),
        ("saliency_maps.dino.split", "test", "key `saliency_maps.dino.split`: may leave out questions of `rollouts.g8`"),
        ("saliency_maps.dino.tasks", ["ocr"], "key `saliency_maps.dino.tasks`: may leave out questions of `rollouts.g8`"),
        ("saliency_maps.dino.limit", 600, "key `saliency_maps.dino.limit`: may leave out questions of `rollouts.g8`"),
        ("benchmarks.shapes-rounds-test.views", ["hidden"], "key `saliency_maps.dino.split`: may leave out questions of `benchmarks.shapes-rounds-test`"),
        ("samplings", {"s": {"view": "hidden", "split": "test"}}, "key `saliency_maps.dino.split`: may leave out questions of `samplings.s`"),
        ("trainings.grpo.view", "hidden", "key `trainings.grpo.view`: `hidden` needs a saliency map; training views of rounds do not support these"),
        ("pair_generations", {"p": {"robust": {"chosen": {}, "rejected": {"view": "hidden"}}}}, "key `pair_generations.p.robust.rejected.view`: `hidden` needs a saliency map; pairs do not support these"),
    ],
)  # fmt: skip
def test_incompatible_views_and_saliency_maps(path: str, value: Any, expected: str) -> None:
    config = with_semantic_mask()
    *outer, last = path.split(".")
    place = config
    for key in outer:
        place = place[key]
    place[last] = value
    with pytest.raises(UserError) as caught:
        planning.load(config)
    assert expected in str(caught.value)


def test_rounds_have_no_crops() -> None:
    config = copy.deepcopy(P2DPO)
    config |= {key: ROUNDS[key] for key in ("rollouts", "batch_selections")}
    config["trainings"]["papo_g"] = {**ROUNDS["trainings"]["papo_g"], "parameters": {"mask": "degraded"}}
    with pytest.raises(
        UserError,
        match=r"key `trainings\.papo_g`: view `degraded` needs a crop; rounds have none, crops are available only for pairs",
    ):
        planning.load(config)


def test_a_wrong_parameter_of_a_method_with_rounds_is_named() -> None:
    config = copy.deepcopy(ROUNDS)
    config["trainings"]["papo_g"]["parameters"] = {"gama": 1}
    with pytest.raises(UserError, match=r"key `trainings\.papo_g\.parameters\.gama`: unknown key"):
        planning.load(config)


def test_any_round_can_be_exported() -> None:
    named = {"last": "grpo", "first": "grpo@1", "third": "grpo@3"}
    config = edited("exports", {n: {"experiment": e, "format": "trl"} for n, e in named.items()}, ROUNDS)
    plan = planning.load(config)
    assert [plan.exported(n) for n in named] == ["grpo@4", "grpo@1", "grpo@3"]


def test_only_rounds_have_limits() -> None:
    with pytest.raises(UserError, match=r"key `trainings\.dpo\.limits`: method `dpo` has no rounds; remove this key"):
        planning.load(edited("trainings.dpo.limits", {"loss": [0, 1]}))


def with_mdpo(**parameters: Any) -> dict[str, Any]:
    """The demo with a method that uses two views, and views that need a crop or a saliency map."""
    config = edited(
        "views", {"hidden": {"type": "semantic", "saliency_map": "dino"}, "tiny-part": {"type": "random_crop"}}
    )
    config["saliency_maps"] = {"dino": {"path": "dino"}}
    config["attention_maps"], config["crops"] = {"first": {}}, {"salient": {"attention_map": "first"}}
    config["views"]["cut"] = {"type": "degraded", "crop": "salient"}
    config["views"]["either"] = {"choice": ["tiny-part", "hidden"]}
    config["trainings"]["perpo"] |= {"method": "mdpo", "parameters": parameters}
    return config


def test_jobs_of_a_list_method_get_every_view_it_uses() -> None:
    plan = planning.load(with_mdpo(corrupted="either"))
    assert views_trained(plan, "perpo") == ["original", "either"]
    assert view_blocks(plan, *views_trained(plan, "perpo")).keys() == {"either", "tiny-part", "hidden"}
    assert saliency_tables(plan, "shapes", views_trained(plan, "perpo")) == {
        "dino": "<results>/saliency/shapes/dino.parquet"
    }
    assert list(plan.stored_logprobs("perpo")) == [Stored("reference", "original"), Stored("reference", "either")]
    assert len(set(plan.stored_logprobs("perpo").values())) == 2
    modules = job_of(plan, "train_adapter", {"experiment": "perpo"}).modules
    assert {"perceptune.core.views.random_crop", "perceptune.core.views.semantic"} < set(modules)
    assert views_trained(plan, "dpo") == ["original"]


def test_jobs_of_a_pair_method_get_the_views_behind_its_responses() -> None:
    plan = planning.load(P2DPO)
    assert views_trained(plan, "p2dpo") == ["original", "enhanced", "degraded", "noisy"]
    assert views_trained(plan, "p2dpo-no-focus") == ["original", "noisy"]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("trainings.perpo.parameters", {}, "key `trainings.perpo`: method `mdpo` uses view `corrupted`, which is not defined"),
        ("trainings.perpo.parameters", {"corrupted": "hiden"}, "key `trainings.perpo.parameters.corrupted`: view `hiden` is not defined; did you mean `hidden`?"),
        ("trainings.perpo.parameters", {"corrupted": "noise"}, "key `trainings.perpo.parameters.corrupted`: view `noise` is not defined"),
        ("trainings.perpo.parameters", {"corrupted": "original"}, "key `trainings.perpo.parameters.corrupted`: `original` is the training view"),
        ("trainings.perpo.parameters", {"corrupted": "cut"}, "key `trainings.perpo`: view `cut` needs a crop; ranked lists have none, crops are available only for pairs"),
        ("trainings.perpo.view", "cut", "key `trainings.perpo.view`: `cut` needs a crop; ranked lists have none, crops are available only for pairs"),
        ("saliency_maps.dino.split", "test", "key `saliency_maps.dino.split`: may leave out questions of `samplings.n20`"),
        ("saliency_maps.dino.limit", 1, "key `saliency_maps.dino.limit`: may leave out questions of `samplings.n20`"),
        ("views.tiny-part.parameters", {"smallest": 0.5}, "key `views.tiny-part.parameters`: `smallest` 0.5 exceeds `largest` 0.2"),
    ],
)  # fmt: skip
def test_views_that_a_list_method_cannot_use(path: str, value: Any, expected: str) -> None:
    with pytest.raises(UserError) as caught:
        planning.load(edited(path, value, with_mdpo(corrupted="hidden")))
    assert expected in str(caught.value)


def test_a_list_method_may_train_under_a_saliency_map_but_its_lists_are_not_exported() -> None:
    config = edited("trainings.perpo.view", "hidden", with_mdpo(corrupted="tiny-part"))
    assert views_trained(planning.load(config), "perpo") == ["hidden", "tiny-part"]
    config["exports"] = {"out": {"experiment": "perpo", "format": "trl"}}
    with pytest.raises(
        UserError, match=r"key `exports\.out`: view `hidden` needs a saliency map; exports do not support these"
    ):
        planning.load(config)
