"""Steps in the background: the next step does not wait for them, the end of the method does.

What was begun is never cut short: an injection that is under way is completed, so that it can be undone. A request to
stop ends the waits inside of it.
"""

from collections.abc import Awaitable, Callable

from chaos.arena.interrupt import Interrupted
from chaos.experiment.records import Activity
from chaos.history.verdict import Finding, FindingKind
from harness.errors import BlackstartError
from harness.ports import DeadlinePassed, Runtime
from harness.synchronization import Signal

__all__ = ["BackgroundSteps"]


class BackgroundSteps:
    """The background of one run. `findings` grows as steps end."""

    def __init__(self, runtime: Runtime, *, run: Callable[[Activity], Awaitable[Finding | None]]) -> None:
        """`run` carries out one step."""
        self.findings: list[Finding] = []
        self._runtime = runtime
        self._run = run
        self._under_way = 0
        self._ended = Signal(runtime)

    def begin(self, activity: Activity) -> None:
        """Begin a step and go on."""
        self._under_way += 1
        self._runtime.spawn(self._root(activity), name=f"background {activity.name}")

    async def wait_ended(self) -> None:
        """Returns when every step that was begun has ended."""
        while self._under_way:
            await self._ended.wait()

    async def _root(self, activity: Activity) -> None:
        try:
            finding = await self._run(activity)
            if finding is not None:
                self.findings.append(finding)
        except Interrupted:
            pass  # the runner hears of the signal by itself
        except (BlackstartError, DeadlinePassed) as error:
            self.findings.append(Finding(kind=FindingKind.HARNESS, reason=f"{activity.name}: {error}"))
        except Exception as error:  # noqa: BLE001 - a task's root: nobody awaits it
            reason = f"{activity.name}: {type(error).__name__}: {error} (a defect)"
            self.findings.append(Finding(kind=FindingKind.HARNESS, reason=reason))
        finally:
            self._under_way -= 1
            self._ended.notify()
