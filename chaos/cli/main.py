"""`blackstart`: the one command, its groups of subcommands, and how it ends.

The heavy parts (engine client, tables, runner) are imported by the commands that need them, so that `--help` is there
at once. Exit codes: 0 passed, 1 an expectation or invariant broke, or a request was refused or had no effect in time,
2 wrong usage or file, 3 no steady state, 4 the harness failed or its results could not be written, 5 clean-up
incomplete, 6 inconclusive, 129, 130, 131 and 143 after SIGHUP, SIGINT, SIGQUIT and SIGTERM.
"""

import signal
import sys
from collections.abc import Sequence
from typing import IO, cast

import click

from chaos.cli.experiment_commands import report, run, validate
from chaos.cli.group_commands import group, resource
from chaos.cli.log_commands import events, logs
from chaos.cli.node_commands import node
from chaos.cli.repair_command import repair
from chaos.cli.rig_commands import compose, doctor, down, images, status, up
from chaos.cli.search_commands import replay, search, shrink
from chaos.cli.signals import exit_code_of, install
from chaos.cli.vm_commands import vm
from chaos.cli.wait_commands import quorum, wait
from chaos.output.printing import Stream, echo, echo_traceback, guarded, standard_streams
from harness.errors import BlackstartError, CleanupError, ConditionUnmet, NotOnline, RequestRefused, UsageError

__all__ = ["cli", "main", "run_command"]

UNMET = 1
USAGE = 2
HARNESS = 4
CLEANUP = 5
SIGNALS = 128

_EPILOG = """\b
Examples:
  blackstart doctor                                   what this host can do
  blackstart up                                       three nodes, six VMs
  blackstart status
  blackstart group move web1 --to node2
  blackstart events --follow
  blackstart run chaos/experiments/node-power-cut.yaml
  blackstart search --time-limit 10m                  schedules of faults in the simulator, until one breaks it
  blackstart down

\b
Exit codes:
  0         passed
  1         an expectation or an invariant broke; a request was refused, its effect did not come in time
  2         wrong usage or an invalid file
  3         no steady state: nothing was injected
  4         the harness failed, or results could not be written to standard output
  5         clean-up is incomplete: the message names what is left
  6         inconclusive
  129, 130, 131, 143  ended by SIGHUP, SIGINT, SIGQUIT, SIGTERM; cleaned up
"""


@click.group(epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="blackstart", prog_name="blackstart")
def cli() -> None:
    """Chaos tests for virtual-machine failover: a rig of containers, a real cluster, faults, and a verdict."""


for command in (
    *(doctor, up, status, down, repair, run, report, validate, search, shrink, replay, images, compose),
    *(group, resource, node, vm, wait, quorum, events, logs),
):
    cli.add_command(command)


def main() -> None:
    """The entry point of the process: never returns."""
    install()
    try:
        code = run_command(sys.argv[1:])
    except KeyboardInterrupt as error:  # a further signal, while the first one was being answered
        code = exit_code_of(error)
    sys.exit(code)


def run_command(arguments: Sequence[str]) -> int:
    """The exit code. Root of the command line: what nothing else handles ends here."""
    with standard_streams() as (out, _):
        code = _ended(arguments)
        out.flush()
        return _with_output(code, out)


def _ended(arguments: Sequence[str]) -> int:
    try:
        ended = cli.main(args=list(arguments), prog_name="blackstart", standalone_mode=False)
    except click.ClickException as error:
        error.show(file=cast(IO[str], guarded(err=True)))
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # click makes its own error of every KeyboardInterrupt.
        code = exit_code_of(error)
        echo(f"blackstart: ended by {signal.Signals(code - SIGNALS).name}", err=True)
        return code
    except BlackstartError as error:
        for line in str(error).split("\n"):
            echo(f"blackstart: {line}", err=True)
        return _code(error)
    except Exception:  # noqa: BLE001 - a defect of ours must not look like a broken expectation (exit code 1)
        echo_traceback()
        echo("blackstart: this is a defect of Blackstart itself and says nothing about your system", err=True)
        return HARNESS
    return ended if isinstance(ended, int) else 0


def _with_output(code: int, out: Stream) -> int:
    """A success whose results reached no reader is none; a reader that has closed its end (`| head`) wanted no more."""
    if not out.problem:
        return code
    echo(f"blackstart: cannot write to standard output: {out.problem}; the output is incomplete", err=True)
    return code or HARNESS


def _code(error: BlackstartError) -> int:
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, RequestRefused | ConditionUnmet | NotOnline):
        return UNMET
    return CLEANUP if isinstance(error, CleanupError) else HARNESS
