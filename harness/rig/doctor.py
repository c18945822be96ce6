"""What this machine can and cannot do for a rig, tried where that is possible, and what to do about it.

It changes nothing that lasts: two containers and a volume are made and removed. An absent engine is a finding, not an
error.
"""

import contextlib
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import docker

from harness.errors import BlackstartError, EngineError, HarnessError, NoSuchContainer
from harness.model import labels
from harness.rig.base_image import DEBIAN_ARCHITECTURES, present_base
from harness.rig.compose import HYPERVISOR_IMAGE, NODE_CAPABILITIES, VOTER_PORT
from harness.rig.compose_tool import find_compose_tool
from harness.rig.engine import connect, engine_call
from harness.rig.images import ImageState, find_project_root, image_status
from harness.rig.teardown import rig_names

__all__ = ["FREEZING", "LIMITED_DISK", "Check", "Health", "Report", "examine"]

ENGINE_LIMIT_S = 20
TRIAL_LIMIT_S = 30
API_LEAST = (1, 41)
DISK_NEEDED_BYTES = 3 << 30
"""Base, two images and their build: 1 GiB; the rest is for logs and voters."""
MEMORY_NEEDED_BYTES = 1 << 30
"""Three nodes of 60 MiB and six machines of 12 MiB; the rest is the engine's and the runner's."""

DOCTOR_RIG = "doctor"

FREEZING, LIMITED_DISK = "freezing", "disks of a size"
"""Checks that some faults need and no rig does."""
LIMITED_DISK_BYTES = 8 << 20
LIMITED_DISK_OPTIONS = {"type": "tmpfs", "device": "tmpfs", "o": f"size={LIMITED_DISK_BYTES}"}

_TRIAL = f"""
ip address add 192.0.2.77/32 dev lo && echo address
setpriv --reuid 903 --regid 903 --clear-groups --inh-caps -all,+net_admin --ambient-caps -all,+net_admin \
    --bounding-set -all,+net_admin --no-new-privs ip address add 192.0.2.78/32 dev lo && echo ambient
iptables -A INPUT -s 192.0.2.79 -j DROP && echo filter
iptables -A OUTPUT -p tcp --dport {VOTER_PORT} -m owner ! --uid-owner 900 -j REJECT && echo owner
"""


class Health(StrEnum):
    """OK, works with a limitation, or does not work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at: what was seen, and what to do about it (empty when nothing)."""

    name: str
    health: Health
    saw: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that `doctor` says."""

    checks: tuple[Check, ...]

    @property
    def health(self) -> Health:
        """The worst of all checks."""
        found = {check.health for check in self.checks}
        return next((health for health in (Health.FAIL, Health.WARN) if health in found), Health.OK)


def examine() -> Report:
    """Looks at everything; takes about two seconds. Raises nothing that has to do with the engine."""
    checks = [_python()]
    try:
        with contextlib.closing(connect(limit_s=ENGINE_LIMIT_S)) as client:
            checks.extend(_with_engine(client))
    except HarnessError as error:
        checks.append(_failed("engine", "no engine answers", str(error)))
    checks.append(_compose())
    return Report(checks=tuple(checks))


def _with_engine(client: docker.DockerClient) -> Iterator[Check]:
    try:
        with engine_call("ask the engine about itself"):
            version = client.version()
            info = client.info()
    except EngineError as error:
        yield _failed("engine", str(error), "see why the engine does not answer")
        return
    yield _engine(version)
    yield _architecture(info)
    yield _control_groups(info)
    yield _storage(info)
    yield _memory(info)
    yield from _images(client)
    yield from _node_trial(client)
    yield from _fault_trials(client)
    yield _rigs(client)


def _python() -> Check:
    saw = f"{platform.python_version()} ({sys.executable})"
    return Check(name="python", health=Health.OK, saw=saw)


def _engine(version: dict[str, Any]) -> Check:
    saw = f"{version['Version']}, API {version['ApiVersion']}"
    if tuple(int(part) for part in version["ApiVersion"].split(".")) < API_LEAST:
        return _failed("engine", saw, "install Docker Engine 20.10 or newer")
    return Check(name="engine", health=Health.OK, saw=saw)


def _architecture(info: dict[str, Any]) -> Check:
    saw = f"{info['OSType']} {info['Architecture']}, kernel {info['KernelVersion']}, {info['OperatingSystem']}"
    if info["OSType"] != "linux" or info["Architecture"] not in DEBIAN_ARCHITECTURES:
        return _failed("platform", saw, f"an engine on Linux, {' or '.join(DEBIAN_ARCHITECTURES)}")
    return Check(name="platform", health=Health.OK, saw=saw)


def _control_groups(info: dict[str, Any]) -> Check:
    version = str(info.get("CgroupVersion", "1"))
    note = "" if version == "2" else ": a paused machine keeps its node from dying, so it is killed first"
    return Check(name="control groups", health=Health.OK, saw=f"v{version}{note}")


def _storage(info: dict[str, Any]) -> Check:
    driver, root = str(info["Driver"]), str(info["DockerRootDir"])
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return Check(name="storage", health=Health.OK, saw=f"{driver}; {root} is not on this machine")
    saw = f"{driver}, {free / (1 << 30):.1f} GiB free in {root}"
    if free < DISK_NEEDED_BYTES:
        return _warned("storage", saw, f"free {DISK_NEEDED_BYTES >> 30} GiB: `docker system df` shows what takes it")
    if driver == "vfs":
        return _warned("storage", saw, "install fuse-overlayfs or use overlay2: vfs copies every layer, and is slow")
    return Check(name="storage", health=Health.OK, saw=saw)


def _memory(info: dict[str, Any]) -> Check:
    total = int(info["MemTotal"])
    saw = f"{total / (1 << 30):.1f} GiB, {info['NCPU']} processors"
    if total < MEMORY_NEEDED_BYTES:
        return _warned("memory", saw, "1 GiB or more for three nodes and six machines")
    return Check(name="memory", health=Health.OK, saw=saw)


def _compose() -> Check:
    tool = find_compose_tool()
    version = tool.version() if tool is not None else ""
    if tool is None or not version:
        advice = "Debian, Ubuntu: `sudo tools/engine.sh install`; elsewhere install Docker Compose"
        return _failed("compose", "neither `docker compose` nor `docker-compose` works", advice)
    return Check(name="compose", health=Health.OK, saw=f"{' '.join(tool.command)} {version}")


def _images(client: docker.DockerClient) -> Iterator[Check]:
    try:
        statuses = image_status(client, project_root=find_project_root())
        base = present_base(client)
    except BlackstartError as error:
        yield _failed("images", "unknown", str(error))
        return
    wanting = [f"{status.tag} is {status.state.value}" for status in statuses if status.state is not ImageState.CURRENT]
    current = ", ".join(status.tag for status in statuses)
    if wanting:
        yield _warned("images", "; ".join(wanting), "`blackstart images build` (`up` and `run` do it by themselves)")
    else:
        yield Check(name="images", health=Health.OK, saw=f"{current}: {ImageState.CURRENT.value}")
    if base is not None:
        yield Check(name="base image", health=Health.OK, saw=base.reference)
    elif not wanting:
        yield Check(name="base image", health=Health.OK, saw="none, and none is needed: the images are built")
    else:
        maker = shutil.which("mmdebstrap")
        saw = f"none; {'mmdebstrap can make one' if maker else 'a registry may have one'}"
        advice = "" if maker else "without a registry: `sudo apt-get install mmdebstrap` (Debian, Ubuntu)"
        yield Check(name="base image", health=Health.OK if maker else Health.WARN, saw=saw, advice=advice)


def _node_trial(client: docker.DockerClient) -> Iterator[Check]:
    """Runs a container as a node is run, and tries in it what a node must be able to do."""
    try:
        done = _try_in_node(client)
    except NoSuchContainer:
        yield _warned("node", "not tried, because there is no image yet", "`blackstart images build`, then again")
        return
    except EngineError as error:
        yield _failed("node", f"the engine does not run a node: {error}", "see what of it this engine or host forbids")
        return
    saw = "adds addresses and filter rules, without being root or privileged"
    yield _tried("node", done, ("address", "ambient", "filter"), saw)
    if "owner" in done:
        yield Check(name="iptables owner match", health=Health.OK, saw="guests can be kept from the voter by their uid")
    else:
        advice = "load xt_owner: without it a guest can flood the voter with connections (it still has no password)"
        yield _warned("iptables owner match", "the kernel does not have it", advice)


def _try_in_node(client: docker.DockerClient) -> set[str]:
    """The words of the steps that worked."""
    with engine_call("run a node for a trial"):
        container = client.containers.create(
            HYPERVISOR_IMAGE,
            entrypoint=["sh", "-c", _TRIAL],
            labels={labels.RIG: DOCTOR_RIG, labels.ROLE: str(labels.Role.CLIENT)},
            cap_drop=["ALL"],
            cap_add=list(NODE_CAPABILITIES),
            security_opt=["no-new-privileges:true"],
            sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"},
            network_mode="bridge",
        )
    try:
        with engine_call("run a node for a trial"):
            container.start()
            container.wait(timeout=TRIAL_LIMIT_S)
            return set(container.logs(stdout=True, stderr=False).decode(errors="replace").split())
    finally:
        with engine_call("remove the trial's container"):
            container.remove(force=True)


def _fault_trials(client: docker.DockerClient) -> Iterator[Check]:
    """Freezes a container, and looks at a volume of a size of its own in it."""
    try:
        size, state = _try_faults(client)
    except NoSuchContainer:
        for name in (FREEZING, LIMITED_DISK):
            yield _warned(name, "not tried, because there is no image yet", "`blackstart images build`, then again")
        return
    except EngineError as error:
        for name in (FREEZING, LIMITED_DISK):
            yield _warned(name, f"could not be tried: {error}", "only some faults need it")
        return
    if state == "paused":
        yield Check(name=FREEZING, health=Health.OK, saw="containers can be frozen and thawed")
    else:
        yield _warned(FREEZING, f"a container that was paused is {state}", "the engine needs a freezer control group")
    if size == LIMITED_DISK_BYTES:
        yield Check(name=LIMITED_DISK, health=Health.OK, saw="volumes in memory can be limited, and filled")
    else:
        advice = "the engine's local volumes must take type=tmpfs and size"
        yield _warned(LIMITED_DISK, f"a volume of {LIMITED_DISK_BYTES} bytes has {size}", advice)


def _try_faults(client: docker.DockerClient) -> tuple[int, str]:
    """The size in bytes that a volume of LIMITED_DISK_BYTES has, and the state of a container that was paused."""
    mark = {labels.RIG: DOCTOR_RIG, labels.ROLE: str(labels.Role.VOLUME)}
    with engine_call("try a container that is frozen, with a volume of a size of its own"):
        client.images.get(HYPERVISOR_IMAGE)
        volume = client.volumes.create(driver="local", driver_opts=LIMITED_DISK_OPTIONS, labels=mark)
    try:
        with engine_call("try a container that is frozen, with a volume of a size of its own"):
            container = client.containers.create(
                HYPERVISOR_IMAGE,
                entrypoint=["sh", "-c", "echo $(($(stat -f -c '%b*%S' /data))); sleep 60"],
                labels={labels.RIG: DOCTOR_RIG, labels.ROLE: str(labels.Role.CLIENT)},
                volumes={volume.name: {"bind": "/data", "mode": "rw"}},
                network_mode="none",
            )
        try:
            with engine_call("freeze a container"):
                container.start()
                size = next(container.logs(stream=True, follow=True))
                container.pause()
                container.reload()
                return int(size), str(container.status)
        finally:
            with engine_call("remove the trial's container"):
                container.remove(force=True)
    finally:
        with engine_call("remove the trial's volume"):
            volume.remove(force=True)


def _tried(name: str, done: set[str], wanted: tuple[str, ...], saw: str) -> Check:
    failed = [step for step in wanted if step not in done]
    if failed:
        advice = "the engine must grant NET_ADMIN inside of a container's own network namespace"
        return _failed(name, f"these steps failed: {', '.join(failed)}", advice)
    return Check(name=name, health=Health.OK, saw=saw)


def _rigs(client: docker.DockerClient) -> Check:
    try:
        names = rig_names(client)
    except EngineError as error:
        return _warned("rigs", str(error), "")
    return Check(name="rigs", health=Health.OK, saw=", ".join(names) or "none stands")


def _failed(name: str, saw: str, advice: str) -> Check:
    return Check(name=name, health=Health.FAIL, saw=saw, advice=advice)


def _warned(name: str, saw: str, advice: str) -> Check:
    return Check(name=name, health=Health.WARN, saw=saw, advice=advice)
