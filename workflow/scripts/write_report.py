"""Write the report page, the result table and the figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from perceptune.contracts.config import BenchmarkBlock, ReportBlock
from perceptune.stages import report
from perceptune.stages.job import job

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

if __name__ == "__main__":  # spawned workers import this file again, without `snakemake`
    with job(snakemake):
        settings = snakemake.params.settings
        report.run(
            metrics=Path(snakemake.input.metrics),
            training={name: Path(table) for name, table in settings["training"].items()},
            statistics={name: Path(table) for name, table in settings["statistics"].items()},
            pairs={
                label: {name: Path(table) for name, table in tables.items()}
                for label, tables in settings["pairs"].items()
            },
            rounds={
                experiment: {"policies": dict(of["policies"]), "marks": Path(of["marks"])}
                for experiment, of in settings["rounds"].items()
            },
            noise=settings["noise"],
            controls={policy: Path(table) for policy, table in settings["controls"]["tables"].items()},
            twinless=settings["controls"]["twinless"],
            predictions={
                policy: {name: Path(table) for name, table in tables.items()}
                for policy, tables in settings["predictions"].items()
            },
            examples={name: Path(table) for name, table in settings["examples"].items()},
            benchmarks={name: BenchmarkBlock(**block) for name, block in settings["benchmarks"].items()},
            base=settings["base"],
            report=Path(snakemake.output.report),
            result_table=Path(snakemake.output.result),
            figures={Path(figure).stem: Path(figure) for figure in snakemake.output.figures},
            config=ReportBlock(**settings["report"]),
        )
