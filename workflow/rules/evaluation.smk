"""Benchmark answers to metrics, and metrics to the page that a person reads.

reads   rewards of every policy on its benchmarks
writes  verdicts: what a judge says of answers, where a benchmark has one
        metrics: long and tidy, with 95 % intervals and the paired gain over the base model; the report
        controls: what else may explain a gain, with paired intervals, where the config has the switch
"""


rule judge_answers:
    """What a judge says of a policy's answers to one benchmark: an endpoint, or a model that vLLM runs here."""
    input:
        unpack(inputs("judge_answers")),
    output:
        verdicts=paths.VERDICTS,
    log:
        paths.log(paths.VERDICTS),
    benchmark:
        paths.benchmark(paths.VERDICTS)
    retries: 2
    threads: cores("judge_answers")
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(720),
        gpu=gpus("judge_answers"),
        attempt=attempt_number,
    params:
        *code("judge_answers"),
        **parameters("judge_answers"),
    script:
        "../scripts/run_stage.py"


rule evaluate_policy:
    """The metrics of one policy."""
    input:
        unpack(inputs("evaluate_policy")),
    output:
        metrics=paths.METRICS,
    log:
        paths.log(paths.METRICS),
    threads: cores("evaluate_policy")
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code("evaluate_policy"),
        **parameters("evaluate_policy"),
    script:
        "../scripts/run_stage.py"


rule compare_controls:
    """A policy's gain against other prompts, no image, averages of answers and plain fine-tuning; only with `controls`."""
    input:
        unpack(inputs("compare_controls")),
    output:
        controls=paths.CONTROLS,
    log:
        paths.log(paths.CONTROLS),
    threads: cores("compare_controls")
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code("compare_controls"),
        **parameters("compare_controls"),
    script:
        "../scripts/run_stage.py"


rule collect_metrics:
    """All policies in one table."""
    input:
        unpack(inputs("collect_metrics")),
    output:
        collected=report(
            paths.ALL_METRICS, category="Results", caption="../report/metrics.rst"
        ),
    log:
        paths.log(paths.ALL_METRICS),
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code("collect_metrics"),
        **parameters("collect_metrics"),
    script:
        "../scripts/run_stage.py"


rule write_report:
    """One self-contained page, the plain result table, and the figures for `snakemake --report`."""
    input:
        unpack(inputs("write_report")),
    output:
        report=report(paths.REPORT, category="Results", caption="../report/page.rst"),
        result_table=report(
            paths.RESULT_TABLE, category="Results", caption="../report/result.rst"
        ),
        figures=report(
            expand(paths.FIGURE, figure=paths.FIGURES),
            category="Figures",
            caption="../report/figures.rst",
        ),
    log:
        paths.log(paths.REPORT),
    resources:
        mem_mb=4000,
        runtime=20,
    params:
        *code("write_report"),
        **parameters("write_report"),
    script:
        "../scripts/run_stage.py"
