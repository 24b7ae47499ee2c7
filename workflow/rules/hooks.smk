"""What a run says last: its result, or why it ended."""

from perceptune.planning.outcome import errors_last, failure, result

errors_last(workflow, logger)


onsuccess:
    say_last(
        result(workflow, placed(paths.RESULT_TABLE), placed(paths.REPORT)),
        sys.stdout,
    )


onerror:
    say_last(failure(workflow, log), sys.stderr)
