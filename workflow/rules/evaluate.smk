"""Benchmark answers to metrics, and metrics to the page that a person reads.

reads   rewards of every policy on its benchmarks
writes  verdicts: what a judge says of answers, where a benchmark has one
        metrics: long and tidy, with 95 % intervals and the paired gain over the base model; the report
        controls: what else may explain a gain, with paired intervals, where the config has the switch
"""


rule judge_answers:
    """What a judge says of a policy's answers to one benchmark: an endpoint, or a model that vLLM runs here."""
    input:
        rewards=scored_of_benchmark,
        examples=examples_of_benchmark,
    output:
        verdicts=paths.VERDICTS,
    log:
        paths.log(paths.VERDICTS),
    benchmark:
        paths.benchmark(paths.VERDICTS)
    retries: 2
    threads: threads_of_judge
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(720),
        gpu=gpus_of_judge,
        attempt=attempt_number,
    params:
        *code_of("judge", "judge_answers"),
        plugins=plugins_of_judging,
        settings=of(plan.judging_settings, "benchmark"),
        blocks=judge_of_benchmark,
    script:
        "../scripts/judge_answers.py"


rule evaluate_policy:
    """The metrics of one policy."""
    input:
        rewards=benchmark_rewards,
        base_rewards=base_benchmark_rewards,
        attention=attentions_of,
        base_attention=base_attentions_of,
        examples=examples_measured,
        verdicts=verdicts_of,
        base_verdicts=base_verdicts_of,
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
        judged=benchmarks_judged,
    script:
        "../scripts/evaluate_policy.py"


rule compare_controls:
    """A policy's gain against other prompts, no image, averages of answers and plain fine-tuning; only with `controls`."""
    input:
        rewards=benchmark_rewards,
        base_rewards=base_benchmark_rewards,
        twin_rewards=twin_benchmark_rewards,
        examples=examples_measured,
        verdicts=verdicts_of,
        base_verdicts=base_verdicts_of,
        twin_verdicts=twin_verdicts_of,
    output:
        controls=paths.CONTROLS,
    log:
        paths.log(paths.CONTROLS),
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("comparing", "compare_controls"),
        plugins=plugins_of_evaluation,
        settings=of(plan.evaluation_settings),
        base=of(plan.base),
        twin=of(plan.twin),
        datasets=datasets_measured,
        judged=benchmarks_judged,
    script:
        "../scripts/compare_controls.py"


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
