"""The lock of a rig: one of two gets it, the other learns who has it, and a dead holder's idle lock is taken over."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests

from harness.errors import UsageError
from harness.model import labels
from harness.rig.lifecycle.rig_lock import Holder, RigHeld, claim_rig, holder_of, look_at_lock, release_rig

RIG = "test"


class FakeEngine:
    """The calls of the Docker SDK that a lock makes, on containers in memory."""

    def __init__(self) -> None:
        self.api = self
        self.containers: dict[str, dict[str, Any]] = {}
        self._made = 0

    def create_container(self, image: str, *, name: str, labels: dict[str, str], **_: object) -> dict[str, str]:
        if any(found["Name"] == f"/{name}" for found in self.containers.values()):
            raise docker.errors.APIError("conflict", response=_answer(409), explanation="the name is in use")
        self._made += 1
        identifier = f"id{self._made}"
        self.containers[identifier] = {
            "Id": identifier,
            "Name": f"/{name}",
            "Config": {"Labels": labels, "Image": image},
            "State": {"Status": "created", "Running": False},
        }
        return {"Id": identifier}

    def inspect_container(self, name: str) -> dict[str, Any]:
        for found in self.containers.values():
            if name in (found["Id"], found["Name"].lstrip("/")):
                return found
        raise docker.errors.NotFound("no such container", response=_answer(404))

    def remove_container(self, identifier: str, **_: object) -> None:
        if identifier not in self.containers:
            raise docker.errors.NotFound("no such container", response=_answer(404))
        del self.containers[identifier]

    def run(self, identifier: str) -> None:
        self.containers[identifier]["State"] = {"Status": "running", "Running": True}


def _answer(status: int) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    return answer


def claim(engine: FakeEngine, holder: Holder, **more: Any) -> str:
    return claim_rig(engine, RIG, holder=holder, image="image", **more)  # type: ignore[arg-type]


@pytest.fixture
def ended() -> Holder:
    """A holder whose process has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = Holder.here("blackstart up")
    birth = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19]
    child.communicate(b"\n")
    return replace(here, process=child.pid, birth=birth)


def test_second_claim_names_the_holder_and_its_start() -> None:
    engine = FakeEngine()
    claim(engine, Holder.here("blackstart up"))

    with pytest.raises(RigHeld) as held:
        claim(engine, Holder.here("blackstart run x.yaml"))

    assert f"`blackstart up` (process {os.getpid()}" in str(held.value)
    assert "since 20" in str(held.value)


def test_released_lock_can_be_claimed() -> None:
    engine = FakeEngine()
    release_rig(engine, RIG, claim(engine, Holder.here("blackstart up")))  # type: ignore[arg-type]

    assert claim(engine, Holder.here("blackstart up")) in engine.containers


def test_idle_lock_of_an_ended_process_is_taken_over(ended: Holder) -> None:
    engine = FakeEngine()
    stale = claim(engine, ended)

    fresh = claim(engine, Holder.here("blackstart up"))

    assert list(engine.containers) == [fresh]
    assert fresh != stale


def test_running_reaper_of_an_ended_run_is_never_taken_over(ended: Holder) -> None:
    engine = FakeEngine()
    engine.run(claim(engine, ended, role=labels.Role.REAPER))

    with pytest.raises(RigHeld, match="which has ended"):
        claim(engine, Holder.here("blackstart run x.yaml"))


def test_stopped_reaper_is_never_taken_over(ended: Holder) -> None:
    """Its ledger may have open faults."""
    engine = FakeEngine()
    reaper = claim(engine, ended, role=labels.Role.REAPER)
    engine.containers[reaper]["State"] = {"Status": "exited", "Running": False}

    with pytest.raises(RigHeld):
        claim(engine, Holder.here("blackstart run x.yaml"))


def test_holder_on_another_vm_may_be_alive() -> None:
    engine = FakeEngine()
    elsewhere = replace(Holder.here("blackstart up"), host="other/boot/space", process=1)
    claim(engine, elsewhere)

    assert elsewhere.is_alive() is None
    with pytest.raises(RigHeld, match="on other"):
        claim(engine, Holder.here("blackstart up"))


def test_process_number_used_again_is_another_process() -> None:
    assert Holder.here("blackstart up").is_alive() is True
    assert replace(Holder.here("blackstart up"), birth="1").is_alive() is False


@pytest.mark.parametrize(
    "foreign",
    [{}, {labels.RIG: RIG}, {labels.RIG: RIG, labels.ROLE: "vm"}, {labels.RIG: "b", labels.ROLE: "lock"}],
)
def test_container_that_is_no_lock_is_refused_and_stays(foreign: dict[str, str]) -> None:
    engine = FakeEngine()
    engine.create_container("image", name=f"{RIG}-lock", labels=foreign)

    with pytest.raises(UsageError, match="is not Blackstart's"):
        claim(engine, Holder.here("blackstart up"))
    with pytest.raises(UsageError, match="is not Blackstart's"):
        look_at_lock(engine, RIG)  # type: ignore[arg-type]

    assert len(engine.containers) == 1


@pytest.mark.parametrize("label", ["", "[]", "{}", '{"command": 1}', "\ud800", '{"process": "x"}'])
def test_unreadable_holder_is_unknown_and_refuses(label: str) -> None:
    engine = FakeEngine()
    named = {labels.RIG: RIG, labels.ROLE: "lock", "io.blackstart.holder": label}
    engine.create_container("image", name=f"{RIG}-lock", labels=named)

    lock = look_at_lock(engine, RIG)  # type: ignore[arg-type]
    assert lock is not None
    assert holder_of(lock) is None
    with pytest.raises(RigHeld, match="does not name"):
        claim(engine, Holder.here("blackstart up"))
