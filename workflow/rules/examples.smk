"""Data of any origin to one table of examples.

reads   the user's images and questions, or the demo's generator
writes  examples: one row per question, images checked and identified by content
"""


rule make_shapes:
    """The demo data, in the format that users bring."""
    output:
        data=paths.DATA,
    log:
        paths.log(paths.DATA),
    benchmark:
        paths.benchmark(paths.DATA)
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code_of("shapes", "make_shapes"),
        settings=block("dataset"),
    script:
        "../scripts/make_shapes.py"


rule import_examples:
    """Every row and every image checked."""
    input:
        data=data_of,
    output:
        examples=paths.EXAMPLES,
    log:
        paths.log(paths.EXAMPLES),
    benchmark:
        paths.benchmark(paths.EXAMPLES)
    threads: 2
    resources:
        mem_mb=16000,  # images inside Parquet, ViRL39K's for example, are all in memory, twice
        runtime=60,
    params:
        *code_of("examples", "import_examples"),
        plugins=plugins_of_import,
        settings=of(plan.import_settings, "dataset"),
        block=import_block,
    script:
        "../scripts/import_examples.py"
