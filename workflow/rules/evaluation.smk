"""Evaluation and report.

reads   rewards of every policy on its benchmarks
writes  verdicts: a judge's verdicts on answers, for benchmarks with a judge
        metrics: in long format, with 95 % intervals and the paired gain over the base model
        controls: other explanations of a gain, with paired intervals, if the config has `controls`
        the report
"""


rule judge_answers:
    """Verdicts of a judge (an endpoint or a local model) on a policy's answers to one benchmark."""
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
        mem_mb=memory("judge_answers"),
        runtime=minutes("judge_answers"),
        gpu=gpus("judge_answers"),
        attempt=attempt_number,
    params:
        *code("judge_answers"),
        **parameters("judge_answers"),
    script:
        "../scripts/run_stage.py"


rule evaluate_policy:
    """Metrics of one policy."""
    input:
        unpack(inputs("evaluate_policy")),
    output:
        metrics=paths.METRICS,
    log:
        paths.log(paths.METRICS),
    resources:
        mem_mb=memory("evaluate_policy"),
        runtime=minutes("evaluate_policy"),
    params:
        *code("evaluate_policy"),
        **parameters("evaluate_policy"),
    script:
        "../scripts/run_stage.py"


rule compare_controls:
    """A policy's gain compared with other prompts, blank images, mean-of-N and SFT; needs `controls`."""
    input:
        unpack(inputs("compare_controls")),
    output:
        controls=paths.CONTROLS,
    log:
        paths.log(paths.CONTROLS),
    resources:
        mem_mb=memory("compare_controls"),
        runtime=minutes("compare_controls"),
    params:
        *code("compare_controls"),
        **parameters("compare_controls"),
    script:
        "../scripts/run_stage.py"


rule collect_metrics:
    """Metrics of all policies in one table."""
    input:
        unpack(inputs("collect_metrics")),
    output:
        collected=report(
            paths.ALL_METRICS, category="Results", caption="../report/metrics.rst"
        ),
    log:
        paths.log(paths.ALL_METRICS),
    resources:
        mem_mb=memory("collect_metrics"),
        runtime=minutes("collect_metrics"),
    params:
        *code("collect_metrics"),
        **parameters("collect_metrics"),
    script:
        "../scripts/run_stage.py"


rule write_report:
    """A self-contained HTML report, a plain-text result table, and figures for `snakemake --report`."""
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
        mem_mb=memory("write_report"),
        runtime=minutes("write_report"),
    params:
        *code("write_report"),
        **parameters("write_report"),
    script:
        "../scripts/run_stage.py"
