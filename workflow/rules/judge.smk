"""Responses to numbers, and numbers to preferences.

reads   examples, requests, responses
writes  rewards: one row per response, unparsable ones with their reason; preferences: ranked lists, best first
"""


rule score_responses:
    """One reward per response, with the parsed answer."""
    input:
        requests=paths.REQUESTS,
        responses=paths.RESPONSES,
        examples=examples_of_plan,
    output:
        rewards=paths.REWARDS,
    log:
        paths.log(paths.REWARDS),
    benchmark:
        paths.benchmark(paths.REWARDS)
    threads: 2
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("rewards", "score_responses"),
        plugins=plugins_of_scoring,
        settings=block("reward"),
        weights=of(plan.model_settings),
        model=model_of,
        datasets=datasets_of_plan,
    script:
        "../scripts/score_responses.py"


rule select_preferences:
    """Lists worth learning from, ranked best first, with the statistics of what was dropped."""
    input:
        requests=paths.SAMPLE_REQUESTS,
        responses=paths.SAMPLE_RESPONSES,
        rewards=paths.SAMPLE_REWARDS,
    output:
        preferences=paths.PREFERENCES,
        statistics=paths.PREFERENCE_STATISTICS,
    log:
        paths.log(paths.PREFERENCES),
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        *code_of("preferences", "select_preferences"),
        settings=block("selection"),
    script:
        "../scripts/select_preferences.py"
