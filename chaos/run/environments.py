"""The stages of a command's runs: in which arena each experiment is played."""

from collections.abc import Callable

from chaos.arena.interrupt import Interrupt
from chaos.arena.port import RunEnvironment
from chaos.run.options import RunOptions
from harness.ports import Runtime

__all__ = ["environments"]


def environments(options: RunOptions, runtime: Runtime, interrupt: Interrupt) -> Callable[[], RunEnvironment]:
    """The maker of the stage of each run."""
    # Each arena is imported only by a run that needs it: an engine's client takes its time.
    if options.arena == "sim":
        from chaos.arena.simulation.arena import SimulatedEnvironment

        return lambda: SimulatedEnvironment(runtime, seed=options.seed, interrupt=interrupt)
    from chaos.arena.docker.arena import DockerEnvironment

    return lambda: DockerEnvironment(
        runtime,
        interrupt=interrupt,
        on_rig=options.on_rig,
        keep_rig=options.keep_rig,
        command=options.command,
        reaper=options.reaper,
    )
