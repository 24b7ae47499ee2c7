"""Plan questions, and ask them: sampling for training and every benchmark are the same stage over different requests.

reads   examples, a policy (base model, or base model with adapter)
writes  requests, responses: every sampled answer with its tokens and log-probabilities
"""


rule plan_samples:
    """Training questions."""
    input:
        examples=paths.EXAMPLES,
        crops=crops_of_sampling,
        saliencies=saliencies_of_sampling,
    output:
        requests=paths.SAMPLE_REQUESTS,
    log:
        paths.log(paths.SAMPLE_REQUESTS),
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code_of("requests", "plan_samples"),
        settings=block("sampling"),
        views=sampling_views,
    script:
        "../scripts/plan_samples.py"


rule plan_round:
    """The questions of a round: drawn anew, answered by the policy of the round before."""
    input:
        examples=paths.EXAMPLES,
        before=before_answers,
    output:
        requests=paths.ROUND_REQUESTS,
    log:
        paths.log(paths.ROUND_REQUESTS),
    priority: 1  # before an engine starts for the same policy, so that it answers both
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code_of("requests", "plan_round"),
        settings=block("rollout"),
        views=rollout_views,
        number=round_asked,
    script:
        "../scripts/plan_round.py"


rule plan_pairs:
    """The two answers of every pair."""
    input:
        examples=paths.EXAMPLES,
        crops=crops_of_pairing,
    output:
        requests=paths.PAIR_REQUESTS,
    log:
        paths.log(paths.PAIR_REQUESTS),
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code_of("requests", "plan_pairs"),
        settings=asked_of_pairing,
        views=pairing_views,
        block=whole_block("pairing"),
    script:
        "../scripts/plan_pairs.py"


rule plan_benchmarks:
    """All benchmark questions of a policy in one table, so that its engine starts once."""
    input:
        examples=examples_of_benchmarks,
        crops=crops_of_benchmarks,
        saliencies=saliencies_of_benchmarks,
    output:
        requests=paths.BENCHMARK_REQUESTS,
    log:
        paths.log(paths.BENCHMARK_REQUESTS),
    priority: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        *code_of("requests", "plan_benchmarks"),
        settings=of(plan.asking_settings),
        benchmarks=benchmarks_of,
        rewards=rewards_of_benchmarks,
        datasets=datasets_of_benchmarks,
    script:
        "../scripts/plan_benchmarks.py"


rule sample_responses:
    """Real answers of a policy from vLLM, one engine start per shard."""
    input:
        requests=paths.REQUESTS,
        examples=examples_of_plan,
        adapter=adapter_of,
    output:
        responses=temp(paths.RESPONSE_SHARD),
    log:
        paths.log(paths.RESPONSE_SHARD),
    benchmark:
        paths.benchmark(paths.RESPONSE_SHARD)
    retries: 2
    threads: threads_of_model
    resources:
        mem_mb=again_with_more(12000),
        runtime=again_with_more(720),
        gpu=gpus_of_engine,
        attempt=attempt_number,
    params:
        *code_of("responses", "sample_responses"),
        plugins=plugins_of_sampling,
        settings=of(plan.model_settings),
        datasets=datasets_of_plan,
        model=model_of,
        journal=journal_of,
        beside=beside_of,
    script:
        "../scripts/sample_responses.py"


rule gather_responses:
    """The shards in the order of the requests."""
    input:
        requests=paths.REQUESTS,
        shards=shards_of_plan,
    output:
        responses=paths.RESPONSES,
    log:
        paths.log(paths.RESPONSES),
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        *code_of("gathering", "gather_responses"),
        journal=journal_of,
    script:
        "../scripts/gather_responses.py"
