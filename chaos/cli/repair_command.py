"""`repair`: heal the faults of dead runs at once, and remove their rigs."""

import contextlib

import click

from chaos.cli.rig_commands import valid_rig

__all__ = ["repair"]


@click.command(
    epilog="\b\nExamples:\n  blackstart repair                     every rig that a dead run has left\n"
    "  blackstart repair --name my-rig\n"
    "  blackstart repair --name my-rig --keep-rig     heal its faults, leave it standing"
)
@click.option("--name", callback=valid_rig, help="The rig's name.  [default: every rig on this engine]")
@click.option("--keep-rig", is_flag=True, help="Leave the rig standing, although its run was to remove it.")
@click.option("--force", is_flag=True, help="Disregard that the run may still be alive. Needs --name.")
def repair(name: str | None, keep_rig: bool, force: bool) -> int:
    """Heal the open faults of a dead run and remove its rig, as its reaper would do later.

    Reads everything from the engine. Twice is harmless. A rig of a living run is left alone.
    """
    from chaos.cli.output import Progress
    from chaos.repair.rig_repair import repair_rig
    from harness.errors import CleanupError, UsageError
    from harness.rig.engine.connection import connect
    from harness.rig.lifecycle.teardown import rig_names

    if force and name is None:
        raise UsageError("--force needs --name: it disregards that a run may still be alive")
    say = Progress()
    left = []
    with contextlib.closing(connect()) as client:
        rigs = [name] if name is not None else rig_names(client, with_locks=True)
        for rig in rigs:
            try:
                if not repair_rig(client, rig, say=say, keep_rig=keep_rig, force=force):
                    say(f"rig {rig}: nothing to repair")
            except CleanupError as error:
                left.append(str(error))
            except UsageError as error:
                if name is not None:
                    raise
                say(f"left alone: {error}")
        if not rigs:
            say("there is no rig on this engine: nothing to repair")
    if left:
        raise CleanupError("\n".join(left))
    return 0
