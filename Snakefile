"""perceptune: the entry point in the root of a checkout. The workflow itself is workflow/Snakefile."""


include: "workflow/Snakefile"


# Snakemake forgets the default target of a file once it has been included.
workflow.default_target = "all"
