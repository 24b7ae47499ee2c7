"""Requests and responses. Sampling for training and for benchmarks is the same stage.

reads   examples, a policy (base model, or base model with adapter)
writes  requests; responses: every sampled response with its tokens and log-probs
"""


rule plan_samples:
    """Requests for training responses."""
    input:
        unpack(inputs("plan_samples")),
    output:
        requests=paths.SAMPLE_REQUESTS,
    log:
        paths.log(paths.SAMPLE_REQUESTS),
    resources:
        mem_mb=memory("plan_samples"),
        runtime=minutes("plan_samples"),
    params:
        *code("plan_samples"),
        **parameters("plan_samples"),
    script:
        "../scripts/run_stage.py"


rule plan_round:
    """Requests of a round, to the policy of the previous round."""
    input:
        unpack(inputs("plan_round")),
    output:
        requests=paths.ROUND_REQUESTS,
    log:
        paths.log(paths.ROUND_REQUESTS),
    priority: 1  # before an engine starts for the same policy, so that one start serves both
    resources:
        mem_mb=memory("plan_round"),
        runtime=minutes("plan_round"),
    params:
        *code("plan_round"),
        **parameters("plan_round"),
    script:
        "../scripts/run_stage.py"


rule plan_pairs:
    """Requests for the chosen and rejected responses of pairs."""
    input:
        unpack(inputs("plan_pairs")),
    output:
        requests=paths.PAIR_REQUESTS,
    log:
        paths.log(paths.PAIR_REQUESTS),
    resources:
        mem_mb=memory("plan_pairs"),
        runtime=minutes("plan_pairs"),
    params:
        *code("plan_pairs"),
        **parameters("plan_pairs"),
    script:
        "../scripts/run_stage.py"


rule plan_benchmarks:
    """All benchmark requests of a policy in one table, so that its engine starts only once."""
    input:
        unpack(inputs("plan_benchmarks")),
    output:
        requests=paths.BENCHMARK_REQUESTS,
    log:
        paths.log(paths.BENCHMARK_REQUESTS),
    priority: 1
    resources:
        mem_mb=memory("plan_benchmarks"),
        runtime=minutes("plan_benchmarks"),
    params:
        *code("plan_benchmarks"),
        **parameters("plan_benchmarks"),
    script:
        "../scripts/run_stage.py"


rule sample_responses:
    """Responses of a policy, sampled with vLLM. One engine start per shard."""
    input:
        unpack(inputs("sample_responses")),
    output:
        responses=temp(paths.RESPONSE_SHARD),
    log:
        paths.log(paths.RESPONSE_SHARD),
    benchmark:
        paths.benchmark(paths.RESPONSE_SHARD)
    retries: 2
    threads: cores("sample_responses")
    resources:
        mem_mb=memory("sample_responses"),
        runtime=minutes("sample_responses"),
        gpu=gpus("sample_responses"),
        attempt=attempt_number,
    params:
        *code("sample_responses"),
        **parameters("sample_responses"),
    script:
        "../scripts/run_stage.py"


rule gather_responses:
    """All shards in one table, in the order of the requests."""
    input:
        unpack(inputs("gather_responses")),
        shards=shards,
    output:
        responses=paths.RESPONSES,
    log:
        paths.log(paths.RESPONSES),
    resources:
        mem_mb=memory("gather_responses"),
        runtime=minutes("gather_responses"),
    params:
        *code("gather_responses"),
        **parameters("gather_responses"),
    script:
        "../scripts/run_stage.py"
