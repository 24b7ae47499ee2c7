"""Run the stage of any rule. The rule's name says which; `perceptune.planning.rules` lists them."""

from importlib import import_module
from typing import TYPE_CHECKING

from perceptune.runtime.arguments import arguments_of, bound
from perceptune.runtime.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake) as halvings:
        module, _, function = snakemake.params.stage.partition(":")
        run = getattr(import_module(module), function)  # here, so that what torch prints goes to the log
        run(**bound(run, {**arguments_of(snakemake), "halvings": halvings}))
