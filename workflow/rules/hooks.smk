"""What a run says: why jobs run again and, last, its result, or why it ended."""

from perceptune.planning.outcome import errors_last, failure, result
from perceptune.planning.reasons import short_reasons

short_reasons(workflow, plan, logger)
errors_last(workflow, logger)


onsuccess:
    say_last(
        result(workflow, placed(paths.RESULT_TABLE), placed(paths.REPORT)),
        sys.stdout,
    )


onerror:
    say_last(failure(workflow, log), sys.stderr)
