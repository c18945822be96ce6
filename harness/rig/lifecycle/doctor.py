"""What this host can and cannot do for a rig, tried where that is possible, and what to do about it.

It changes nothing that lasts: one container is run and removed, and one volume. An absent engine is a finding, not an
error. What every rig needs fails when it is missing; what only some features need is a warning, and whoever offers the
feature looks at the check of that name.
"""

import contextlib
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import docker
from docker.models.containers import Container

from harness.errors import BlackstartError, EngineError, HarnessError, NoSuchContainer, WaitTimeout
from harness.model import labels
from harness.rig.engine.connection import connect, engine_call
from harness.rig.engine.ownership import pause_container, remove_container, remove_volume
from harness.rig.images.base_image import DEBIAN_ARCHITECTURES, present_base
from harness.rig.images.build import ImageState, find_project_root, image_status
from harness.rig.lifecycle.compose_file import HYPERVISOR_IMAGE, NODE_CAPABILITIES, VOTER_PORT
from harness.rig.lifecycle.compose_tool import find_compose_tool
from harness.rig.lifecycle.teardown import rig_names

__all__ = ["DISKS_IN_MEMORY", "FREEZING", "PACKET_FILTER", "Check", "Health", "Report", "examine"]

PACKET_FILTER = "packet filter"
GUESTS = "guests' connections"
FREEZING = "freezing"
DISKS_IN_MEMORY = "disks in memory"

ENGINE_LIMIT_S = 20
TRIAL_LIMIT_S = 30
MIN_API_VERSION = (1, 41)
DISK_NEEDED_BYTES = 3 << 30
"""Base, two images and their build: 1 GiB; the rest is for logs and voters."""
MEMORY_NEEDED_BYTES = 1 << 30
"""Three nodes of 60 MiB and six VMs of 12 MiB; the rest is the engine's and the runner's."""

DOCTOR_RIG = "doctor"
LOOK_INTERVAL_S = 0.05

_GUEST_RULES = """
import sys
sys.path.insert(0, "/usr/lib/blackstart")
from node_firewall import close_to_guests, parts_of
trial = {"BLACKSTART_GUEST_USERS": "10001", "BLACKSTART_GUEST_SUBNET": "192.0.2.0/24"}
for log in close_to_guests({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, parts_of(trial, gateway="192.0.2.1")):
    print(log.event)
"""
_TRIAL = f"""
ip address add 192.0.2.77/32 dev lo && echo address
setpriv --reuid 903 --regid 903 --clear-groups --inh-caps -all,+net_admin --ambient-caps -all,+net_admin \
    --bounding-set -all,+net_admin --no-new-privs ip address add 192.0.2.78/32 dev lo && echo ambient
for tool in iptables-nft iptables-legacy; do
    printf '*filter\n-A INPUT -s 192.0.2.79 -j DROP\nCOMMIT\n' | $tool-restore -w 2 --noflush || continue
    echo $tool
    $tool -w 2 -A OUTPUT -p tcp --dport {VOTER_PORT} -m owner ! --uid-owner 900 -j REJECT && echo owner
    break
done
python3 -I -B -c '{_GUEST_RULES}'
echo connections=$(cat /proc/sys/net/netfilter/nf_conntrack_max)
[ "$(stat -f -c %T /trial)" = tmpfs ] && echo disk
echo done
exec sleep {TRIAL_LIMIT_S}
"""
_FLAVOURS = ("iptables-nft", "iptables-legacy")


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
    yield _rigs(client)


def _python() -> Check:
    saw = f"{platform.python_version()} ({sys.executable})"
    return Check(name="python", health=Health.OK, saw=saw)


def _engine(version: dict[str, Any]) -> Check:
    saw = f"{version['Version']}, API {version['ApiVersion']}"
    if tuple(int(part) for part in version["ApiVersion"].split(".")) < MIN_API_VERSION:
        return _failed("engine", saw, "install Docker Engine 20.10 or newer")
    return Check(name="engine", health=Health.OK, saw=saw)


def _architecture(info: dict[str, Any]) -> Check:
    saw = f"{info['OSType']} {info['Architecture']}, kernel {info['KernelVersion']}, {info['OperatingSystem']}"
    if info["OSType"] != "linux" or info["Architecture"] not in DEBIAN_ARCHITECTURES:
        return _failed("platform", saw, f"an engine on Linux, {' or '.join(DEBIAN_ARCHITECTURES)}")
    return Check(name="platform", health=Health.OK, saw=saw)


def _control_groups(info: dict[str, Any]) -> Check:
    version = str(info.get("CgroupVersion", "1"))
    if info.get("CgroupDriver") == "none":
        advice = "a rootless engine needs control groups v2 and systemd to limit and freeze its containers"
        return _warned("control groups", f"v{version}, which the engine may not use", advice)
    note = "" if version == "2" else ": a paused VM keeps its node from dying, so it is killed first"
    return Check(name="control groups", health=Health.OK, saw=f"v{version}{note}")


def _storage(info: dict[str, Any]) -> Check:
    driver, root = str(info["Driver"]), str(info["DockerRootDir"])
    try:
        free = shutil.disk_usage(root).free
    except OSError:
        return Check(name="storage", health=Health.OK, saw=f"{driver}; {root} is not on this host")
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
        return _warned("memory", saw, "1 GiB or more for three nodes and six VMs")
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
    except BlackstartError as error:
        yield _failed("node", f"the engine does not run a node: {error}", "see what of it this engine or host forbids")
        return
    missing = [step for step in ("address", "ambient") if step not in done]
    if missing:
        advice = "the engine must grant NET_ADMIN inside of a container's own network namespace"
        yield _failed("node", f"these steps failed: {', '.join(missing)}", advice)
    else:
        yield Check(name="node", health=Health.OK, saw="adds addresses, without being root or privileged")
    flavours = [flavour for flavour in _FLAVOURS if flavour in done]
    if not flavours:
        saw = f"neither {' nor '.join(_FLAVOURS)} works in a node: no node can be cut off, no guest kept from the voter"
        yield _warned(PACKET_FILTER, saw, "load ip_tables or nf_tables on the engine's host")
    elif "owner" not in done:
        advice = "load xt_owner: without it a guest can flood the voter with connections (it still has no password)"
        yield _warned(PACKET_FILTER, f"{flavours[0]}, without the owner match", advice)
    else:
        saw = f"{flavours[0]}; guests can be kept from the voter by their uid"
        yield Check(name=PACKET_FILTER, health=Health.OK, saw=saw)
    yield _guests_connections(done)
    yield _of(FREEZING, "frozen" in done, "a container can be paused", "the engine pauses no container")
    yield _of(DISKS_IN_MEMORY, "disk" in done, "volumes of a size are made", "the engine makes no tmpfs volume")


def _guests_connections(done: set[str]) -> Check:
    """What a guest can reach and use up, by the rules that a node sets for its guests."""
    size = next((word.partition("=")[2] for word in done if word.startswith("connections=")), "") or "an unknown number"
    problems = []
    if "guest-flows-closed" not in done:
        problems.append(f"a guest can fill the connection table of the engine's host ({size} entries)")
    if "guest-network-closed" not in done:
        problems.append("a guest reaches the engine's host and further")
    if problems:
        advice = "load xt_owner, xt_conntrack, xt_hashlimit and xt_connlimit on the engine's host"
        return _warned(GUESTS, "; ".join(problems), advice)
    saw = f"stay in the rig's network, and each guest's below 7,000 of {size} entries in the connection table"
    return Check(name=GUESTS, health=Health.OK, saw=saw)


def _of(name: str, works: bool, saw: str, saw_not: str) -> Check:
    return Check(name=name, health=Health.OK, saw=saw) if works else _warned(name, saw_not, "")


def _try_in_node(client: docker.DockerClient) -> set[str]:
    """The words of the steps that worked."""
    with engine_call("make a volume for a trial"):
        volume = client.volumes.create(
            driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}, labels=_labels(labels.Role.VOLUME)
        )
    try:
        try:
            return _run_trial(client, {str(volume.name): {"bind": "/trial", "mode": "rw"}})
        except NoSuchContainer:
            raise
        except EngineError:
            return _run_trial(client, {})  # perhaps it was the volume
    finally:
        remove_volume(client, str(volume.name), rig=DOCTOR_RIG)


def _run_trial(client: docker.DockerClient, volumes: dict[str, dict[str, str]]) -> set[str]:
    with engine_call("run a node for a trial"):
        container = client.containers.create(
            HYPERVISOR_IMAGE,
            entrypoint=["sh", "-c", _TRIAL],
            labels=_labels(labels.Role.CLIENT),
            cap_drop=["ALL"],
            cap_add=list(NODE_CAPABILITIES),
            security_opt=["no-new-privileges:true"],
            sysctls={"net.ipv4.ip_unprivileged_port_start": "1024"},
            network_mode="bridge",
            volumes=volumes,
        )
    try:
        with engine_call("run a node for a trial"):
            container.start()
        done: set[str] = set()
        deadline = time.monotonic() + TRIAL_LIMIT_S
        while "done" not in done:
            if time.monotonic() > deadline:
                saw = ", ".join(sorted(done)) or "nothing"
                raise WaitTimeout(waited_for="a trial in a node to end", saw=saw, limit_s=TRIAL_LIMIT_S)
            time.sleep(LOOK_INTERVAL_S)
            with engine_call("read what the trial says"):
                done = set(container.logs(stdout=True, stderr=False).decode(errors="replace").split())
        return done | _frozen(client, container)
    finally:
        remove_container(client, str(container.id), rig=DOCTOR_RIG)


def _frozen(client: docker.DockerClient, container: Container) -> set[str]:
    try:
        pause_container(client, str(container.id), rig=DOCTOR_RIG)
        with engine_call("unpause the trial's container"):
            container.unpause()
    except EngineError:
        return set()
    return {"frozen"}


def _labels(role: labels.Role) -> dict[str, str]:
    return {labels.RIG: DOCTOR_RIG, labels.ROLE: str(role)}


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
