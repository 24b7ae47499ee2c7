"""Writes the JSON schema of the config and the tables in config/README.md.

Both are generated from the config models and the plug-ins. A test checks that they are up to date.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from perceptune.contracts import config
from perceptune.contracts.config import Block, Config
from perceptune.contracts.errors import UserError
from perceptune.contracts.plugins import load, names, summary

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "workflow/schemas/config.schema.json"
KEYS = ROOT / "config/README.md"
MARK = (
    "<!-- generated below this line by `make schemas` from `workflow/perceptune/contracts/config` and the plug-ins -->"
)
PLUGIN_KEYS = {
    ("ModelBlock", "family"): "family",
    ("FileDataset", "kind"): "importer",
    ("ViewBlock", "type"): "view",
    ("RewardBlock", "tasks"): "reward",
    ("TrainingBlock", "method"): "method",
    ("BenchmarkBlock", "protocol"): "benchmark",
    ("ExportBlock", "format"): "exporter",
}
"""Keys whose values are names of plug-ins (or mappings to such names), with the kind of plug-in."""

SECTIONS: dict[str, tuple[type[Block], ...]] = {
    "models": (config.ModelBlock, config.EngineBlock),
    "datasets": (config.ShapesDataset, config.FileDataset),
    "views": (config.ViewBlock,),
    "attention_maps": (config.AttentionBlock,),
    "crops": (config.CropBlock,),
    "saliency_maps": (config.SaliencyBlock,),
    "samplings": (config.SamplingBlock,),
    "pair_generations": (config.PairingBlock, config.PairBlock, config.AnswerBlock, config.ContrastBlock),
    "filters": (config.FilterBlock,),
    "clip_scores": (config.ClipBlock,),
    "rollouts": (config.RolloutBlock,),
    "batch_selections": (config.BatchBlock,),
    "rewards": (config.RewardBlock,),
    "selections": (config.SelectionBlock,),
    "dataset_preferences": (config.GivenBlock,),
    "trainings": (config.TrainingBlock, config.LoraBlock),
    "benchmarks": (config.BenchmarkBlock, config.ContrastBlock),
    "judges": (config.JudgeBlock,),
    "experiments": (config.ExperimentBlock,),
    "comparisons": (config.ComparisonBlock,),
    "agreements": (config.AgreementBlock,),
    "controls": (config.ControlsBlock,),
    "diagnostics": (config.DiagnosticsBlock,),
    "exports": (config.ExportBlock,),
    "report": (config.ReportBlock,),
}


def schema_text() -> str:
    """The JSON schema (draft 2020-12) of a config file.

    Swept keys also accept lists. Plug-in names are suggestions: user plug-ins have other names.
    """
    schema = Config.model_json_schema()
    for (block, key), kind in PLUGIN_KEYS.items():
        _suggest(schema["$defs"][block]["properties"][key], names(kind))
    for swept in (config.SelectionBlock, config.TrainingBlock, config.LoraBlock):
        for key, field in schema["$defs"][swept.__name__]["properties"].items():
            if key not in ("parameters", "lora") and not config.takes_list(swept, key):
                _accept_lists(field)
    values = schema["$defs"]["TrainingBlock"]["properties"]["parameters"]["additionalProperties"]
    values["anyOf"].append({"type": "array"})
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json.dumps(schema, indent=2) + "\n"


def _suggest(field: dict[str, Any], allowed: list[str]) -> None:
    """Adds names as suggestions wherever the field takes a string."""
    if field.get("type") == "string":
        del field["type"]
        field["anyOf"] = [{"enum": allowed}, {"type": "string"}]
    elif "anyOf" in field:
        others = [part for part in field["anyOf"] if part.get("type") != "string"]
        field["anyOf"] = [{"enum": allowed}, {"type": "string"}, *others]
    else:
        _suggest(field["additionalProperties"], allowed)


def _accept_lists(field: dict[str, Any]) -> None:
    keys: list[str] = [k for k in ("title", "description", "default") if k in field]
    kept = {k: field.pop(k) for k in keys}
    alternative = dict(field)
    field.clear()
    field.update({"anyOf": [alternative, {"type": "array", "items": alternative}], **kept})


def key_tables() -> str:
    """Markdown: one table of keys per section, with types, defaults and meanings."""
    parts = []
    for section, models in SECTIONS.items():
        parts.append(f"## `{section}`\n")
        for model in models:
            parts.append(f"{inspect.cleandoc(model.__doc__ or '')}\n")
            parts.append("| key | values | default | meaning |\n|---|---|---|---|")
            properties = model.model_json_schema().get("properties", {})
            definitions = model.model_json_schema().get("$defs", {})
            parts.extend(_row(name, model, properties[name], definitions) for name in model.model_fields)
            parts.append("")
    return "\n".join(parts)


def parameter_tables(kind: str) -> str:
    """Markdown: one table of parameters per method or view, below the summary of its module."""
    parts = [f"## Parameters of {kind}s\n"]
    for name in names(kind):
        model: type[BaseModel] = load(kind, name).Parameters
        if kind == "importer" and not model.model_fields:
            continue  # most formats have none
        parts.append(f"**`{name}`**: {summary(kind, name)}\n")
        if not model.model_fields:
            parts.append("It has no parameters.\n")
            continue
        parts.append("| parameter | values | default | meaning |\n|---|---|---|---|")
        schema = model.model_json_schema()
        parts.extend(_row(n, model, schema["properties"][n], schema.get("$defs", {})) for n in model.model_fields)
        parts.append("")
    return "\n".join(parts)


def _row(name: str, model: type[BaseModel], schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    field = model.model_fields[name]
    if field.is_required():
        default = "*required*"
    elif isinstance(field.default, Block):
        default = "see below"
    else:
        default = f"`{json.dumps(field.default)}`"
    kind = PLUGIN_KEYS.get((model.__name__, name))
    values = values_of(schema, definitions) if kind is None else _names(kind, schema)
    return f"| `{name}` | {values} | {default} | {' '.join(str(field.description).split())} |"


def _names(kind: str, schema: dict[str, Any]) -> str:
    """The names of a key's plug-ins, as text."""
    listed = ", ".join(f"`{name}`" for name in names(kind))
    null = " or null" if {"type": "null"} in schema.get("anyOf", ()) else ""
    return f"mapping to {listed}" if schema.get("type") == "object" else f"{listed}{null}"


def values_of(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        target = definitions[schema["$ref"].rpartition("/")[2]]
        return "mapping" if target.get("type") == "object" else values_of(target, definitions)
    if "enum" in schema:
        return ", ".join(f"`{v}`" for v in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(values_of(s, definitions) for s in schema["anyOf"])
    kind = schema.get("type", "any")
    if kind == "array":
        item: dict[str, Any] = schema.get("items") or next(iter(schema.get("prefixItems", [])), {})
        return f"list of {values_of(item, definitions)}"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
        if key in schema
    ]
    return f"{kind} {' and '.join(bounds)}" if bounds else {"object": "mapping"}.get(kind, kind)


def readme_text() -> str:
    """config/README.md: keeps the text above the mark and regenerates the tables below it."""
    written = KEYS.read_text().partition(MARK)[0]
    tables = [key_tables(), parameter_tables("method"), parameter_tables("view"), parameter_tables("importer")]
    return f"{written}{MARK}\n\n" + "\n".join(tables)


def run() -> None:
    """Writes both files into the checkout that this package is imported from."""
    if not (SCHEMA.is_file() and KEYS.is_file()):
        raise UserError(f"`{SCHEMA}` not found, expected an editable installation of a checkout")
    SCHEMA.write_text(schema_text())
    KEYS.write_text(readme_text())
