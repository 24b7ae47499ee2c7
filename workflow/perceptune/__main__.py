"""Commands that complement Snakemake's: `perceptune COMMAND`, or `python -m perceptune COMMAND`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from perceptune.commands import check, explain, schema
from perceptune.commands import list as list_command
from perceptune.contracts.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. A `UserError` is printed, and the status is 1."""
    parser = argparse.ArgumentParser(prog="perceptune", description=__doc__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, module in (("check", check), ("explain", explain), ("list", list_command), ("schema", schema)):
        text = module.__doc__ or ""
        command = commands.add_parser(
            name,
            help=text.partition("\n")[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
