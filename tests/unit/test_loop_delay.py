"""The watch over a service's own loop: what it reports, and what it does not."""

from pathlib import Path

import pytest

from harness.live.loop_delay import Lateness, LoopWatch, SchedulerFile

MS = 1_000


class Kernel(SchedulerFile):
    """Counts what the test says."""

    def __init__(self, waited_us: int | None = 0) -> None:
        self.waited: int | None = waited_us

    def waited_us(self) -> int | None:
        return self.waited

    def load(self) -> float | None:
        return 24.0


class Loop:
    """A loop whose timer wakes it every half second, and what its watch reported."""

    def __init__(self, waited_us: int | None = 0) -> None:
        self.kernel = Kernel(waited_us)
        self.reported: list[Lateness] = []
        self.watch = LoopWatch(report=self.reported.append, scheduler=self.kernel)
        self.now_us = 0

    def run(self, *, late_ms: int = 0, waited_ms: int = 0) -> None:
        due_us = self.now_us + 500 * MS
        self.now_us = due_us + late_ms * MS
        if self.kernel.waited is not None:
            self.kernel.waited += waited_ms * MS
        self.watch.ran(self.now_us, due_us)


def test_loop_in_time_is_not_reported() -> None:
    loop = Loop()

    for _ in range(10):
        loop.run(late_ms=20, waited_ms=10)

    assert loop.reported == []


def test_stall_is_reported_once_with_its_numbers() -> None:
    loop = Loop()
    loop.run()
    loop.run(late_ms=3000, waited_ms=2900)
    for _ in range(4):
        loop.run()

    (lateness,) = loop.reported
    assert (lateness.late_us, lateness.waited_us, lateness.load) == (3000 * MS, 2900 * MS, 24.0)
    assert str(lateness) == (
        "the loop ran 3.0 s late; of 3.5 s it waited 2.9 s for a processor, load average 24.0"
    )


def test_many_short_waits_are_reported_together() -> None:
    """A loop that is always a little late gets as little done as one that stands still once."""
    loop = Loop()

    for _ in range(5):
        loop.run(late_ms=100, waited_ms=400)

    assert [lateness.waited_us for lateness in loop.reported] == [800 * MS, 800 * MS]


def test_frozen_loop_is_late_and_waited_for_nothing() -> None:
    loop = Loop()
    loop.run()
    loop.run(late_ms=6000)

    (lateness,) = loop.reported
    assert (lateness.late_us, lateness.waited_us) == (6000 * MS, 0)


def test_kernel_that_does_not_count_leaves_the_wait_unknown() -> None:
    loop = Loop(waited_us=None)
    loop.run()
    loop.run(late_ms=2000)

    (lateness,) = loop.reported
    assert lateness.waited_us is None
    assert "it waited an unknown part for a processor" in str(lateness)


def test_at_most_one_line_a_second() -> None:
    loop = Loop()

    for _ in range(40):
        loop.watch.ran(loop.now_us, loop.now_us - 600 * MS)
        loop.now_us += 100 * MS

    assert len(loop.reported) == 3


def test_scheduler_file_of_this_thread_is_read() -> None:
    kernel = SchedulerFile()

    waited_us = kernel.waited_us()

    assert waited_us is None or waited_us >= 0


@pytest.mark.parametrize("text", ["", "12", "1 two 3"])
def test_scheduler_file_of_another_form_is_unknown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "schedstat"
    path.write_text(text)

    assert SchedulerFile(str(path), str(path)).waited_us() is None
    assert SchedulerFile(str(tmp_path / "none"), str(tmp_path / "none")).waited_us() is None
    assert SchedulerFile(str(tmp_path / "none"), str(tmp_path / "none")).load() is None


def test_scheduler_file_counts_in_microseconds(tmp_path: Path) -> None:
    path, load = tmp_path / "schedstat", tmp_path / "loadavg"
    path.write_text("5000000 2500000 7\n")
    load.write_text("24.17 9.1 3.0 2/300 4711\n")

    kernel = SchedulerFile(str(path), str(load))

    assert (kernel.waited_us(), kernel.load()) == (2500, 24.17)
