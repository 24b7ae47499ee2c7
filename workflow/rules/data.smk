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
        *code("make_shapes"),
        **parameters("make_shapes"),
    script:
        "../scripts/run_stage.py"


rule import_examples:
    """Every row and every image checked."""
    input:
        unpack(inputs("import_examples")),
    output:
        examples=paths.EXAMPLES,
    log:
        paths.log(paths.EXAMPLES),
    benchmark:
        paths.benchmark(paths.EXAMPLES)
    threads: cores("import_examples")
    resources:
        mem_mb=16000,  # images inside Parquet, ViRL39K's for example, are all in memory, twice
        runtime=60,
    params:
        *code("import_examples"),
        **parameters("import_examples"),
    script:
        "../scripts/run_stage.py"
