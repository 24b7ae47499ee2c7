"""Entry point of perceptune in the root of a checkout. The workflow is in workflow/Snakefile."""


include: "workflow/Snakefile"


# Snakemake drops the default target of an included file.
workflow.default_target = "all"
