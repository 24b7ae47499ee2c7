"""Run the stage of a rule, as listed in `perceptune.planning.rules`."""

from importlib import import_module
from typing import TYPE_CHECKING

from perceptune.runtime.arguments import arguments_of, bound
from perceptune.runtime.imports import large_imports
from perceptune.runtime.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        module, _, function = snakemake.params.stage.partition(":")
        with large_imports():  # in the job, so that output of torch goes to the log
            run = getattr(import_module(module), function)
        run(**bound(run, {**arguments_of(snakemake), "halvings": halvings}))
