"""perceptune: perceptual preference optimisation of vision-language models.

sample -> score -> select -> reference terms -> train -> evaluate -> report, each step a cached stage.
"""

from snakemake.utils import min_version

min_version("9.27")

if "experiments" not in config:

    configfile: "config/config.yaml"


include: "workflow/rules/setup.smk"
include: "workflow/rules/examples.smk"
include: "workflow/rules/look.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/judge.smk"
include: "workflow/rules/learn.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/export.smk"


rule all:
    """Everything the config asks for: metrics, report, result table."""
    default_target: True
    input:
        paths.REPORT,
        paths.ALL_METRICS,


rule data:
    """Only the imported datasets that experiments use: checks every row and image before anything long starts."""
    input:
        expand(paths.EXAMPLES, dataset=plan.config.used_datasets()),


rule adapters:
    """Only the trained adapters."""
    input:
        expand(paths.ADAPTER, experiment=plan.trained),


rule models:
    """What experiments end with, as model folders with a card: merged weights that were compared with base and adapter."""
    input:
        expand(paths.MODEL_CARD, policy=plan.final),


rule exports:
    """The preferences that the config's `exports` name, for other trainers."""
    input:
        expand(paths.EXPORT, export=plan.config.exports),
