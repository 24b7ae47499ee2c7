"""Benchmark answers to metrics, and metrics to the page that a person reads.

reads   rewards of every policy on its benchmarks
writes  metrics: long and tidy, with 95 % intervals and the paired gain over the base model; the report
"""


rule evaluate_policy:
    """The metrics of one policy."""
    input:
        rewards=benchmark_rewards,
        base_rewards=base_benchmark_rewards,
        attention=attentions_of,
        base_attention=base_attentions_of,
        examples=examples_measured,
    output:
        metrics=paths.METRICS,
    log:
        paths.log(paths.METRICS),
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("evaluate", "evaluate_policy"),
        plugins=plugins_of_evaluation,
        settings=of(plan.evaluation_settings),
        weights=of(plan.model_settings),
        base=of(plan.base),
        model=model_of,
        looked=attention_benchmarks,
        datasets=datasets_measured,
    script:
        "../scripts/evaluate_policy.py"


rule collect_metrics:
    """All policies in one table."""
    input:
        expand(paths.METRICS, policy=plan.policies),
    output:
        metrics=report(
            paths.ALL_METRICS, category="Results", caption="../report/metrics.rst"
        ),
    log:
        paths.log(paths.ALL_METRICS),
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code_of("collecting", "collect_metrics"),
    script:
        "../scripts/collect_metrics.py"


rule write_report:
    """One self-contained page, the plain result table, and the figures for `snakemake --report`."""
    input:
        unpack(report_inputs),
    output:
        report=report(paths.REPORT, category="Results", caption="../report/page.rst"),
        result=report(
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
        *code_of("report", "write_report"),
        settings=report_settings,
    script:
        "../scripts/write_report.py"
