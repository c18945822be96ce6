"""What the doctor saw of a VM, as the faults that can be injected on it."""

from chaos.compatibility.fault_support import NEEDS, fault_abilities
from chaos.faults import FAULTS
from harness.rig.lifecycle.doctor import DISKS_IN_MEMORY, FREEZING, PACKET_FILTER, Check, Health

FIT = tuple(Check(name=name, health=Health.OK, saw="it works") for name in ("engine", *sorted(set(NEEDS.values()))))


def unavailable(*checks: Check) -> set[str]:
    changed = {check.name for check in checks}
    kept = (check for check in FIT if check.name not in changed)
    return {ability.fault for ability in fault_abilities([*kept, *checks]) if not ability.available}


def test_a_fit_vm_offers_every_fault_and_says_what_each_does() -> None:
    abilities = fault_abilities(FIT)

    assert [ability.fault for ability in abilities] == list(FAULTS)
    assert all(ability.available and ability.effect for ability in abilities)


def test_what_every_rig_needs_takes_every_fault_away() -> None:
    assert unavailable(Check(name="engine", health=Health.FAIL, saw="none answers")) == FAULTS.keys()


def test_what_only_some_faults_need_takes_those_away() -> None:
    def missing(name: str) -> set[str]:
        return unavailable(Check(name=name, health=Health.WARN, saw="it does not work"))

    assert missing(PACKET_FILTER) == {"node.isolate", "node.join-network"}
    assert missing(DISKS_IN_MEMORY) == {"voter.disk-full", "voter.free-disk"}
    assert {"node.hang", "engine.stall"} <= missing(FREEZING)
    assert missing("images") == set()


def test_a_packet_filter_without_the_owner_match_still_cuts_nodes_off() -> None:
    seen = Check(name=PACKET_FILTER, health=Health.WARN, saw="iptables-nft, without the owner match")

    assert unavailable(seen) == set()


def test_the_needs_name_faults_that_exist() -> None:
    assert NEEDS.keys() <= FAULTS.keys()
