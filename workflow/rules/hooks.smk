"""What a run says last: its result, or why it ended."""

from perceptune.planning.outcome import errors_last, failure, result

# Snakemake ignores the hooks of modules; the Snakefile that uses one can call them (docs/module.md).
if workflow.modifier.is_main_snakefile() and workflow.is_main_process:
    errors_last(logger)


onsuccess:
    say_last(
        result(workflow, placed(paths.RESULT_TABLE), placed(paths.REPORT)),
        sys.stdout,
    )


onerror:
    say_last(failure(workflow, log), sys.stderr)
