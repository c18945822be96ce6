"""`blackstart`: the one command, its groups of subcommands, and how it ends.

The heavy parts (engine client, tables, runner) are imported by the commands that need them, so that `--help` is there
at once. Exit codes: 0 passed, 1 an expectation or invariant broke, or a request was refused or had no effect in time,
2 wrong usage or file, 3 no steady state, 4 the harness failed, 5 clean-up incomplete, 6 inconclusive, 130 and 143 after
a signal.
"""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType

import click

from chaos.cli.experiment_commands import report, run, validate
from chaos.cli.group_commands import group, resource
from chaos.cli.log_commands import events, logs
from chaos.cli.machine_commands import vm
from chaos.cli.node_commands import node
from chaos.cli.repair_command import repair
from chaos.cli.rig_commands import compose, doctor, down, images, status, up
from chaos.cli.search_commands import replay, search, shrink
from chaos.cli.wait_commands import quorum, wait
from harness.errors import BlackstartError, CleanupError, ConditionUnmet, RequestRefused, UsageError

__all__ = ["Terminated", "cli", "main", "run_command"]

UNMET = 1
USAGE = 2
HARNESS = 4
CLEANUP = 5
INTERRUPTED = 130
TERMINATED = 143

_EPILOG = """\b
Examples:
  blackstart doctor                                   what this machine can do
  blackstart up                                       three nodes, six machines
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
  4         the harness failed
  5         clean-up is incomplete
  6         inconclusive
  130, 143  interrupted, terminated; cleaned up
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends the same way as Ctrl-C does, with its own exit code."""


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
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run_command(sys.argv[1:]))


def run_command(arguments: Sequence[str]) -> int:
    """The exit code. Root of the command line: what nobody handled ends here."""
    try:
        ended = cli.main(args=list(arguments), prog_name="blackstart", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        # click makes its own error of every KeyboardInterrupt.
        signalled = isinstance(error, Terminated) or isinstance(error.__cause__, Terminated)
        with contextlib.suppress(OSError):
            click.echo("blackstart: interrupted", err=True)
        return TERMINATED if signalled else INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`| head`): nothing more to say, and nothing may be said when Python closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BlackstartError as error:
        for line in str(error).splitlines():
            click.echo(f"blackstart: {line}", err=True)
        return _code(error)
    except Exception:  # noqa: BLE001 - a defect of ours must not look like a broken expectation (exit code 1)
        traceback.print_exc()
        click.echo("blackstart: this is a defect of Blackstart itself and says nothing about your system", err=True)
        return HARNESS
    return ended if isinstance(ended, int) else 0


def _code(error: BlackstartError) -> int:
    if isinstance(error, UsageError):
        return USAGE
    if isinstance(error, RequestRefused | ConditionUnmet):
        return UNMET
    return CLEANUP if isinstance(error, CleanupError) else HARNESS


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated
