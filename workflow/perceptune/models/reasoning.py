"""How a model marks its reasoning. Reads configuration files only, no weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from perceptune.contracts.config import ModelBlock
from perceptune.core.answers.reasoning import COMMON, Reasoning, markers_in

TEMPLATE = "chat_template.jinja"
IN_JSON = ("chat_template.json", "processor_config.json", "tokenizer_config.json")
"""Files with a key `chat_template`, in the order in which transformers reads them."""
QUESTION = [{"role": "user", "content": [{"type": "text", "text": "?"}]}]


def reasoning_of(model: ModelBlock) -> Reasoning:
    """How a model marks its reasoning: the block's `reasoning`, else the known markers that its chat
    template mentions, else `<think>` and `</think>`.
    """
    template = _template(Path(model.path))
    markers = model.reasoning or markers_in(template) or COMMON
    return Reasoning(markers, _prompt_end(template).endswith(markers[0]))


@cache
def _template(folder: Path) -> str:
    """The model's chat template; empty if it has none."""
    try:
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        found = (_template_in(folder / name) for name in IN_JSON)
        return next((template for template in found if template), "")


def _template_in(file: Path) -> str:
    try:
        template = json.loads(file.read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return ""
    if isinstance(template, list):  # several named templates
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _prompt_end(template: str) -> str:
    """The end of a rendered prompt, without trailing white space; empty if rendering fails."""
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    try:
        prompt = environment.from_string(template).render(messages=QUESTION, add_generation_prompt=True)
    except Exception:  # a template is a program of others, and may use functions of transformers
        return ""
    return prompt.rstrip()
