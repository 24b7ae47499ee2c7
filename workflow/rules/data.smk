"""Import of datasets.

reads   images and questions of the user, or generated demo data
writes  examples: one row per question, with images checked and identified by content
        leakage: what training data share with benchmarks
"""


rule make_shapes:
    """Generate the demo data, in the format of user data."""
    output:
        data=paths.DATA,
    log:
        paths.log(paths.DATA),
    benchmark:
        paths.benchmark(paths.DATA)
    resources:
        mem_mb=memory("make_shapes"),
        runtime=minutes("make_shapes"),
    params:
        *code("make_shapes"),
        **parameters("make_shapes"),
    script:
        "../scripts/run_stage.py"


rule import_examples:
    """Import a dataset and check every row and image."""
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
        mem_mb=memory("import_examples"),
        runtime=minutes("import_examples"),
    params:
        *code("import_examples"),
        **parameters("import_examples"),
    script:
        "../scripts/run_stage.py"


rule find_leakage:
    """Images and questions that training data share with the benchmarks of their experiments."""
    input:
        unpack(inputs("find_leakage")),
    output:
        leakage=paths.LEAKAGE,
    log:
        paths.log(paths.LEAKAGE),
    priority: 2  # before anything is sampled
    resources:
        mem_mb=memory("find_leakage"),
        runtime=minutes("find_leakage"),
    params:
        *code("find_leakage"),
        **parameters("find_leakage"),
    script:
        "../scripts/run_stage.py"
