"""What a run says last: its result, or why it ended."""

from perceptune.planning.outcome import failure, result


onsuccess:
    say_last(
        result(workflow, placed(paths.RESULT_TABLE), placed(paths.REPORT)),
        sys.stdout,
    )


onerror:
    say_last(failure(workflow, log), sys.stderr)
