"""Rewards and preferences.

reads   examples, requests, responses
writes  rewards: one row per response, with a reason for unparsable ones
        preferences: ranked lists (best first), pairs, or rollout groups
"""


rule score_responses:
    """Reward and parsed answer of every response."""
    input:
        unpack(inputs("score_responses")),
    output:
        rewards=paths.REWARDS,
    log:
        paths.log(paths.REWARDS),
    benchmark:
        paths.benchmark(paths.REWARDS)
    resources:
        mem_mb=memory("score_responses"),
        runtime=minutes("score_responses"),
    params:
        *code("score_responses"),
        **parameters("score_responses"),
    script:
        "../scripts/run_stage.py"


rule select_preferences:
    """Ranked lists, best first, and statistics of the dropped ones."""
    input:
        unpack(inputs("select_preferences")),
    output:
        preferences=paths.PREFERENCES,
        statistics=paths.PREFERENCE_STATISTICS,
    log:
        paths.log(paths.PREFERENCES),
    resources:
        mem_mb=memory("select_preferences"),
        runtime=minutes("select_preferences"),
    params:
        *code("select_preferences"),
        **parameters("select_preferences"),
    script:
        "../scripts/run_stage.py"


rule use_dataset_preferences:
    """Ranked lists from dataset preferences, encoded with the base model's tokenizer."""
    input:
        unpack(inputs("use_dataset_preferences")),
    output:
        preferences=paths.GIVEN,
        statistics=paths.GIVEN_STATISTICS,
    log:
        paths.log(paths.GIVEN),
    resources:
        mem_mb=memory("use_dataset_preferences"),
        runtime=minutes("use_dataset_preferences"),
    params:
        *code("use_dataset_preferences"),
        **parameters("use_dataset_preferences"),
    script:
        "../scripts/run_stage.py"


rule select_batch:
    """The groups of a round to train on, and statistics of the dropped ones."""
    input:
        unpack(inputs("select_batch")),
    output:
        preferences=paths.BATCH,
        statistics=paths.BATCH_STATISTICS,
    log:
        paths.log(paths.BATCH),
    resources:
        mem_mb=memory("select_batch"),
        runtime=minutes("select_batch"),
    params:
        *code("select_batch"),
        **parameters("select_batch"),
    script:
        "../scripts/run_stage.py"


rule make_pairs:
    """Chosen and rejected response of every example, with the views they were generated under."""
    input:
        unpack(inputs("make_pairs")),
    output:
        pairs=paths.PAIRS,
    log:
        paths.log(paths.PAIRS),
    benchmark:
        paths.benchmark(paths.PAIRS)
    resources:
        mem_mb=memory("make_pairs"),
        runtime=minutes("make_pairs"),
    params:
        *code("make_pairs"),
        **parameters("make_pairs"),
    script:
        "../scripts/run_stage.py"


rule filter_pairs:
    """Filtered pairs, and statistics of the dropped ones."""
    input:
        unpack(inputs("filter_pairs")),
    output:
        preferences=paths.FILTERED_PAIRS,
        statistics=paths.PAIR_STATISTICS,
    log:
        paths.log(paths.FILTERED_PAIRS),
    resources:
        mem_mb=memory("filter_pairs"),
        runtime=minutes("filter_pairs"),
    params:
        *code("filter_pairs"),
        **parameters("filter_pairs"),
    script:
        "../scripts/run_stage.py"
