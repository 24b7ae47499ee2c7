"""Comparisons by a judge, and agreement of judges and people.

reads   rewards of two policies, or the pairs of an experiment; people's labels; selected tokens
writes  compared: a judge's verdicts on two answers to each question
        comparisons: win rates, or the differences of a benchmark's metrics, with 95 % intervals
        labelled: selected tokens with a judge's labels
        agreements: raw agreement and Cohen's kappa
"""


rule judge_again:
    """Verdicts of a second judge on a policy's answers to one benchmark; needs `agreements`."""
    input:
        unpack(inputs("judge_again")),
    output:
        verdicts=paths.SECOND_VERDICTS,
    log:
        paths.log(paths.SECOND_VERDICTS),
    benchmark:
        paths.benchmark(paths.SECOND_VERDICTS)
    retries: 2
    threads: cores("judge_again")
    resources:
        mem_mb=memory("judge_again"),
        runtime=minutes("judge_again"),
        gpu=gpus("judge_again"),
        attempt=attempt_number,
    params:
        *code("judge_again"),
        **parameters("judge_again"),
    script:
        "../scripts/run_stage.py"


rule judge_comparison:
    """Verdicts of a judge on two answers to each question; needs `comparisons`."""
    input:
        unpack(inputs("judge_comparison")),
    output:
        compared=paths.COMPARED,
    log:
        paths.log(paths.COMPARED),
    benchmark:
        paths.benchmark(paths.COMPARED)
    retries: 2
    threads: cores("judge_comparison")
    resources:
        mem_mb=memory("judge_comparison"),
        runtime=minutes("judge_comparison"),
        gpu=gpus("judge_comparison"),
        attempt=attempt_number,
    params:
        *code("judge_comparison"),
        **parameters("judge_comparison"),
    script:
        "../scripts/run_stage.py"


rule measure_comparison:
    """The metrics of one comparison."""
    input:
        unpack(inputs("measure_comparison")),
    output:
        comparisons=paths.COMPARISON,
    log:
        paths.log(paths.COMPARISON),
    resources:
        mem_mb=memory("measure_comparison"),
        runtime=minutes("measure_comparison"),
    params:
        *code("measure_comparison"),
        **parameters("measure_comparison"),
    script:
        "../scripts/run_stage.py"


rule label_tokens:
    """Words of answers that a judge says state what the image shows; needs `agreements`."""
    input:
        unpack(inputs("label_tokens")),
    output:
        labelled=paths.LABELLED_TOKENS,
    log:
        paths.log(paths.LABELLED_TOKENS),
    benchmark:
        paths.benchmark(paths.LABELLED_TOKENS)
    retries: 2
    threads: cores("label_tokens")
    resources:
        mem_mb=memory("label_tokens"),
        runtime=minutes("label_tokens"),
        gpu=gpus("label_tokens"),
        attempt=attempt_number,
    params:
        *code("label_tokens"),
        **parameters("label_tokens"),
    script:
        "../scripts/run_stage.py"


rule measure_agreement:
    """Agreement of a judge with a second one, with people, or with a selection of tokens."""
    input:
        unpack(inputs("measure_agreement")),
    output:
        agreements=paths.AGREEMENT,
    log:
        paths.log(paths.AGREEMENT),
    threads: cores("measure_agreement")
    resources:
        mem_mb=memory("measure_agreement"),
        runtime=minutes("measure_agreement"),
    params:
        *code("measure_agreement"),
        **parameters("measure_agreement"),
    script:
        "../scripts/run_stage.py"
