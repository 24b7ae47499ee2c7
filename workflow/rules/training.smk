"""Probes of models, stored log-probs and training.

reads   examples, preferences; in rounds also the previous policy
writes  probe: whether family `auto` understands a model, and how to train it; terms: log-probs that do not change in training; an adapter in PEFT format; training curves; diagnostics: gradients of an adapter's weights
"""


rule probe_model:
    """Compare training and vLLM with the generation of a model of family `auto`, before its first use."""
    input:
        unpack(inputs("probe_model")),
    output:
        probe=paths.PROBE,
    log:
        paths.log(paths.PROBE),
    benchmark:
        paths.benchmark(paths.PROBE)
    wildcard_constraints:
        **single["probe_model"],
    retries: 2
    threads: cores("probe_model")
    resources:
        mem_mb=memory("probe_model"),
        runtime=minutes("probe_model"),
        gpu=gpus("probe_model"),
        attempt=attempt_number,
    params:
        *code("probe_model"),
        **parameters("probe_model"),
    script:
        "../scripts/run_stage.py"


rule compute_logprobs:
    """Log-probs under the base model or the sampling policy, shared by methods and coefficients."""
    input:
        unpack(inputs("compute_logprobs")),
    output:
        terms=paths.TERMS,
    log:
        paths.log(paths.TERMS),
    benchmark:
        paths.benchmark(paths.TERMS)
    retries: 2
    threads: cores("compute_logprobs")
    resources:
        mem_mb=memory("compute_logprobs"),
        runtime=minutes("compute_logprobs"),
        gpu=gpus("compute_logprobs"),
        attempt=attempt_number,
    params:
        *code("compute_logprobs"),
        **parameters("compute_logprobs"),
    script:
        "../scripts/run_stage.py"


rule train_adapter:
    """Train a LoRA adapter. A killed run resumes from its latest checkpoint."""
    input:
        unpack(inputs("train_adapter")),
    output:
        adapter=paths.ADAPTER,
        config=paths.ADAPTER_CONFIG,
        training=paths.TRAINING,
    log:
        paths.log(paths.TRAINING),
    benchmark:
        paths.benchmark(paths.TRAINING)
    wildcard_constraints:
        **single["train_adapter"],
    retries: 2
    threads: cores("train_adapter")
    resources:
        **on_nodes("train_adapter"),
        mem_mb=memory("train_adapter"),
        runtime=minutes("train_adapter"),
        gpu=gpus("train_adapter"),
        attempt=attempt_number,
    params:
        *code("train_adapter"),
        **parameters("train_adapter"),
    script:
        "../scripts/run_stage.py"


rule keep_epoch:
    """The adapter that a training kept after an epoch, as the adapter of a policy."""
    input:
        unpack(inputs("keep_epoch")),
    output:
        adapter=paths.ADAPTER,
        config=paths.ADAPTER_CONFIG,
    log:
        paths.log(paths.ADAPTER),
    wildcard_constraints:
        **single["keep_epoch"],
    resources:
        mem_mb=memory("keep_epoch"),
        runtime=minutes("keep_epoch"),
    params:
        *code("keep_epoch"),
        **parameters("keep_epoch"),
    script:
        "../scripts/run_stage.py"


rule train_round:
    """Train the adapter of one round: a few steps from the previous one, on its responses."""
    input:
        unpack(inputs("train_round")),
    output:
        adapter=paths.ADAPTER,
        config=paths.ADAPTER_CONFIG,
        round=paths.ROUND,
        training=paths.TRAINING,
    log:
        paths.log(paths.TRAINING),
    benchmark:
        paths.benchmark(paths.TRAINING)
    wildcard_constraints:
        **single["train_round"],
    retries: 2
    threads: cores("train_round")
    resources:
        **on_nodes("train_round"),
        mem_mb=memory("train_round"),
        runtime=minutes("train_round"),
        gpu=gpus("train_round"),
        attempt=attempt_number,
    params:
        *code("train_round"),
        **parameters("train_round"),
    script:
        "../scripts/run_stage.py"


rule select_tokens:
    """Tokens that a method selects in a round (CPPO), with their scores, as a table and as JSON lines."""
    input:
        unpack(inputs("select_tokens")),
    output:
        selected=paths.SELECTED,
        lines=paths.SELECTED_LINES,
    log:
        paths.log(paths.SELECTED),
    wildcard_constraints:
        **single["select_tokens"],
    resources:
        mem_mb=memory("select_tokens"),
        runtime=minutes("select_tokens"),
    params:
        *code("select_tokens"),
        **parameters("select_tokens"),
    script:
        "../scripts/run_stage.py"


rule measure_gradients:
    """Gradients of the adapter's weights by kind of pair; needs `diagnostics`."""
    input:
        unpack(inputs("measure_gradients")),
    output:
        diagnostics=paths.DIAGNOSTICS,
    log:
        paths.log(paths.DIAGNOSTICS),
    benchmark:
        paths.benchmark(paths.DIAGNOSTICS)
    wildcard_constraints:
        **single["measure_gradients"],
    retries: 2
    threads: cores("measure_gradients")
    resources:
        mem_mb=memory("measure_gradients"),
        runtime=minutes("measure_gradients"),
        gpu=gpus("measure_gradients"),
        attempt=attempt_number,
    params:
        *code("measure_gradients"),
        **parameters("measure_gradients"),
    script:
        "../scripts/run_stage.py"
