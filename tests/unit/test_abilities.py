"""Which faults `doctor` calls available."""

from chaos.abilities import abilities
from chaos.faults import FAULTS
from harness.rig.doctor import FREEZING, LIMITED_DISK, Check, Health


def missing(*checks: Check) -> set[str]:
    return {ability.fault for ability in abilities(checks) if not ability.available}


def test_a_fault_and_its_cure_lack_what_only_they_need() -> None:
    frozen = Check(name=FREEZING, health=Health.WARN, saw="no freezer")
    disk = Check(name=LIMITED_DISK, health=Health.WARN, saw="no such volumes")

    assert missing(frozen, disk) == {
        *("vm.hang", "vm.thaw", "node.hang", "node.thaw", "engine.stall", "engine.resume"),
        *("voter.disk-full", "voter.free-disk"),
    }
    assert missing(disk) == {"voter.disk-full", "voter.free-disk"}


def test_what_every_rig_needs_every_fault_needs() -> None:
    assert missing(Check(name="engine", health=Health.FAIL, saw="none answers")) == FAULTS.keys()


def test_a_warning_about_something_else_takes_no_fault_away() -> None:
    assert missing(Check(name="memory", health=Health.WARN, saw="little")) == set()
