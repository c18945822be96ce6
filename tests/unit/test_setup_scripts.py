"""`tools/engine.sh` installs and starts only where nobody is at the keyboard or somebody agreed, and says what to do
elsewhere. The host's commands and files are stand-ins; nothing of this host is asked.
"""

import os
import pty
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "engine.sh"
LIMIT_S = 60

REAL = ("sh", "dirname", "tail", "grep", "cat", "timeout", "touch", "chmod")
"""What the script needs of every host."""

SLEEP = shutil.which("sleep")

STUBS = {
    "id": '[ "$1" = -un ] && echo somebody || echo "${STUB_UID:-0}"',
    "uname": 'echo "${STUB_SYSTEM:-Linux}"',
    "modprobe": "exit 1",
    "apt-get": 'echo "$*" >> "$STUBS/apt"; [ -z "${STUB_APT:-}" ] || { echo "$STUB_APT"; exit 100; }; '
    'case "$*" in *docker-compose*) touch "$STUBS/compose";; esac; '
    'case "$*" in *docker.io*) echo "$STUB_DOCKERD" > "$STUBS/dockerd"; chmod +x "$STUBS/dockerd";; esac',
    "apt-cache": 'case " ${STUB_PACKAGES:-} " in *" $2 "*) echo "Package: $2";; *) exit 100;; esac',
    "docker": 'case "$1" in '
    'version) [ -e "$STUBS/running" ] || { echo "${STUB_REFUSAL:-Cannot connect to the engine}"; exit 1; };; '
    'context) echo "${STUB_CONTEXT:-default}";; '
    "*) exit 1;; esac",
    "docker-compose": '[ -e "$STUBS/compose" ]',
    "systemctl": 'echo "systemctl $*" >> "$STUBS/started"; [ -z "${STUB_BROKEN:-}" ] && touch "$STUBS/running"',
    "journalctl": 'echo "the journal says why"',
    "service": 'echo "service $*" >> "$STUBS/started"; [ -z "${STUB_BROKEN:-}" ] && touch "$STUBS/running"',
    "sleep": f"exec {SLEEP} 0.05",  # a second of the script
    "setsid": 'echo "setsid $*" >> "$STUBS/started"; exec "$@"',
}
DOCKERD = (
    '#!/bin/sh\necho "the daemon says why"; [ -n "${STUB_MUTE:-}" ] || touch "$STUBS/running"; '
    f"exec {SLEEP} 1"
)
DYING_DOCKERD = '#!/bin/sh\necho "the daemon says why"; exit 1'

DEBIAN_12 = "ID=debian\nVERSION_ID=12\n"
UBUNTU = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A directory of stand-ins for commands, and one for the host's files."""

    commands: Path
    files: Path

    def set_up(
        self, *arguments: str, answer: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Calls the script; at a terminal when there is an `answer` to whatever it asks."""
        env = {
            "PATH": str(self.commands),
            "STUBS": str(self.commands),
            "STUB_DOCKERD": DOCKERD,
            "SETUP_ROOT": str(self.files),
            "STARTING_LIMIT_S": "15",
            **environment,
        }
        keyboard, stdin = pty.openpty()
        try:
            if answer is not None:
                os.write(keyboard, f"{answer}\n".encode())
            return subprocess.run(
                ["sh", str(SCRIPT), *arguments],
                stdin=stdin if answer is not None else subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=env,
                timeout=LIMIT_S,
                check=False,
            )
        finally:
            os.close(keyboard)
            os.close(stdin)

    def has(self, name: str) -> "Host":
        """The engine runs (`running`), or Compose works (`compose`)."""
        (self.commands / name).touch()
        return self

    def has_engine(self, daemon: str = DOCKERD) -> "Host":
        """An engine is installed and does not run."""
        self._add("dockerd", daemon)
        return self

    def is_a(self, release: str) -> "Host":
        """What its /etc/os-release says."""
        (self.files / "etc/os-release").write_text(release)
        return self

    def with_init(self, kind: str) -> "Host":
        """An init system: `systemd` or `sysv`."""
        if kind == "systemd":
            (self.files / "run/systemd/system").mkdir(parents=True)
        else:
            (self.files / "etc/init.d").mkdir()
            (self.files / "etc/init.d/docker").touch()
        return self

    def installed(self) -> list[str]:
        """The packages that apt-get was asked to install."""
        file = self.commands / "apt"
        asked = file.read_text().splitlines() if file.exists() else []
        return [word for line in asked if " install " in line for word in line.partition("recommends ")[2].split()]

    def started(self) -> list[str]:
        """How an engine was started."""
        file = self.commands / "started"
        return file.read_text().splitlines() if file.exists() else []

    def _add(self, name: str, text: str) -> None:
        (self.commands / name).write_text(f"{text}\n")
        (self.commands / name).chmod(0o755)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Debian 12, the user is root, no engine, no Compose, no init system, a kernel with overlay."""
    commands, files = tmp_path / "commands", tmp_path / "files"
    for directory in (commands, files / "etc", files / "proc", files / "run", files / "var/log"):
        directory.mkdir(parents=True)
    (files / "proc/filesystems").write_text("nodev\tproc\nnodev\toverlay\n")
    for name in REAL:
        (commands / name).symlink_to(shutil.which(name) or f"/bin/{name}")
    found = Host(commands=commands, files=files)
    for name, body in STUBS.items():
        found._add(name, f"#!/bin/sh\n{body}")
    return found.is_a(DEBIAN_12)


def test_engine_that_answers_is_left_alone(host: Host) -> None:
    done = host.has("running").has("compose").set_up()

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert host.installed() == []


# Nobody at the keyboard, root, Debian or Ubuntu: it is done, and said.


@pytest.mark.parametrize(
    ("release", "packages", "engine", "compose"),
    [
        (DEBIAN_12, "docker.io docker-compose", [], "docker-compose"),
        ("ID=debian\nVERSION_ID=13\n", "docker.io docker-cli docker-compose", ["docker-cli"], "docker-compose"),
        (UBUNTU, "docker.io docker-compose docker-compose-v2", [], "docker-compose-v2"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "docker-compose-v2", [], "docker-compose-v2"),
    ],
)
def test_unattended_root_gets_engine_and_compose_under_the_releases_names(
    host: Host, release: str, packages: str, engine: list[str], compose: str
) -> None:
    done = host.is_a(release).set_up(STUB_PACKAGES=packages)

    assert done.returncode == 0, done.stderr
    assert host.installed() == ["docker.io", "iptables", "ca-certificates", *engine, compose]


def test_what_is_installed_and_how_to_undo_it_is_said(host: Host) -> None:
    done = host.set_up()

    assert "setup: installing docker.io iptables ca-certificates (apt-get install)" in done.stdout
    assert "to undo: apt-get purge docker.io iptables ca-certificates" in done.stdout
    assert "rm -r /var/lib/docker" in done.stdout
    assert "to undo: apt-get purge docker-compose" in done.stdout


def test_a_kernel_without_overlay_gets_fuse_overlayfs(host: Host) -> None:
    (host.files / "proc/filesystems").write_text("nodev\tproc\n\text4\n")

    host.set_up()

    assert "fuse-overlayfs" in host.installed()


def test_packages_that_cannot_be_had_end_it_with_what_apt_said(host: Host) -> None:
    done = host.set_up(STUB_APT="E: Unable to locate package")

    assert done.returncode != 0
    assert "E: Unable to locate package" in done.stderr
    assert host.started() == []


def test_only_compose_is_installed_where_an_engine_answers(host: Host) -> None:
    done = host.has("running").set_up()

    assert done.returncode == 0
    assert host.installed() == ["docker-compose"]


def test_ci_counts_as_nobody_even_with_a_terminal(host: Host) -> None:
    done = host.has("running").set_up(answer="n", CI="true")

    assert done.returncode == 0
    assert host.installed() == ["docker-compose"]


# Somebody at the keyboard: asked, and no answer means no.


@pytest.mark.parametrize("answer", ["", "n", "what?"])
def test_person_at_a_terminal_is_asked_and_anything_but_yes_changes_nothing(host: Host, answer: str) -> None:
    done = host.set_up(answer=answer)

    assert done.returncode == 1
    assert "Install docker.io, Compose and iptables by apt-get, and start the engine? [y/N]" in done.stderr
    assert "nothing was installed" in done.stderr
    assert (host.installed(), host.started()) == ([], [])


def test_a_yes_is_for_engine_and_compose_at_once(host: Host) -> None:
    done = host.set_up(answer="y")

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("[y/N]") == 1
    assert "docker.io" in host.installed()
    assert "docker-compose" in host.installed()


def test_install_as_an_argument_is_the_consent(host: Host) -> None:
    done = host.set_up("install", answer="n")

    assert done.returncode == 0, done.stderr
    assert "docker.io" in host.installed()


def test_person_at_a_terminal_is_asked_before_an_engine_is_started(host: Host) -> None:
    host.has_engine().has("compose")

    refused, agreed = host.set_up(answer=""), host.set_up(answer="yes")

    assert refused.returncode == 1
    assert "does not run. Start it? [y/N]" in refused.stderr
    assert agreed.returncode == 0
    assert host.started() == ["setsid dockerd"]


# Elsewhere: one message, with the platform's command.


@pytest.mark.parametrize(
    ("release", "environment", "command"),
    [
        (DEBIAN_12, {"STUB_UID": "1000"}, "sudo tools/engine.sh install"),
        (UBUNTU, {"STUB_UID": "1000"}, "sudo tools/engine.sh install"),
        ("ID=fedora\n", {}, "sudo dnf install moby-engine docker-compose"),
        ("ID=rocky\nID_LIKE='rhel centos fedora'\n", {}, "sudo dnf install"),
        ("ID=arch\n", {}, "sudo pacman -S docker docker-compose"),
        ("ID=opensuse-leap\nID_LIKE='suse opensuse'\n", {}, "sudo zypper install docker"),
        ("ID=alpine\n", {}, "sudo apk add docker docker-cli-compose"),
        ("ID=plan9\n", {}, "https://docs.docker.com/engine/install/"),
        (DEBIAN_12, {"STUB_SYSTEM": "Darwin"}, "brew install --cask docker"),
    ],
)
def test_elsewhere_one_message_names_the_command_of_the_platform(
    host: Host, release: str, environment: dict[str, str], command: str
) -> None:
    done = host.is_a(release).set_up(**environment)

    assert done.returncode == 1
    assert done.stderr.count("setup: ") == 1
    assert "setup: there is no container engine" in done.stderr
    assert command in done.stderr
    assert (host.installed(), host.started()) == ([], [])


def test_a_missing_compose_tool_is_named_where_it_may_not_be_installed(host: Host) -> None:
    done = host.is_a("ID=fedora\n").has("running").set_up()

    assert done.returncode == 1
    assert "neither 'docker compose' nor 'docker-compose' works" in done.stderr
    assert "sudo dnf install" in done.stderr


# An engine that is there, and that this user does not reach.


@pytest.mark.parametrize(
    ("environment", "message", "remedy"),
    [
        ({"DOCKER_HOST": "tcp://elsewhere:2375"}, "at DOCKER_HOST=tcp://elsewhere:2375", "unset DOCKER_HOST"),
        ({"STUB_CONTEXT": "desktop-linux"}, "at the docker context desktop-linux", "docker context use default"),
        (
            {"STUB_REFUSAL": "permission denied while trying to connect", "STUB_UID": "1000"},
            "this user may not speak to it",
            "sudo usermod -aG docker somebody",
        ),
    ],
)
def test_an_engine_out_of_reach_has_a_message_of_its_own_and_none_is_installed_beside_it(
    host: Host, environment: dict[str, str], message: str, remedy: str
) -> None:
    done = host.set_up(**environment)

    assert done.returncode == 1
    assert message in done.stderr
    assert remedy in done.stderr
    assert (host.installed(), host.started()) == ([], [])


def test_the_usual_socket_as_docker_host_is_this_hosts_engine(host: Host) -> None:
    done = host.set_up(DOCKER_HOST="unix:///var/run/docker.sock")

    assert done.returncode == 0, done.stderr
    assert "docker.io" in host.installed()


# An engine that is installed and does not run.


@pytest.mark.parametrize(
    ("init", "how"),
    [("systemd", "systemctl start docker"), ("sysv", "service docker start"), (None, "setsid dockerd")],
)
def test_a_stopped_engine_is_started_the_way_the_host_has(host: Host, init: str | None, how: str) -> None:
    host.has_engine().has("compose")
    if init is not None:
        host.with_init(init)

    done = host.set_up()

    assert done.returncode == 0, done.stderr
    assert host.started() == [how]
    assert done.stdout.startswith("setup: starting ")
    assert "to undo: " in done.stdout
    assert host.installed() == []


def test_a_daemon_in_the_background_names_its_log_and_how_to_end_it(host: Host) -> None:
    done = host.has_engine().has("compose").set_up()

    log, pid = host.files / "var/log/blackstart-dockerd.log", host.files / "run/blackstart-dockerd.pid"
    assert f"its log is {log}; to undo: kill $(cat {pid})" in done.stdout
    assert log.read_text() == "the daemon says why\n"
    assert pid.read_text().strip().isdigit()


def test_a_service_script_that_fails_is_followed_by_a_daemon_in_the_background(host: Host) -> None:
    done = host.has_engine().has("compose").with_init("sysv").set_up(STUB_BROKEN="yes")

    assert done.returncode == 0, done.stderr
    assert host.started() == ["service docker start", "setsid dockerd"]


def test_without_root_a_stopped_engine_is_not_started(host: Host) -> None:
    done = host.has_engine().has("compose").set_up(STUB_UID="1000")

    assert done.returncode == 1
    assert "is installed and does not answer" in done.stderr
    assert "sudo systemctl start docker" in done.stderr
    assert host.started() == []


def test_a_daemon_that_ends_by_itself_is_told_with_its_last_lines(host: Host) -> None:
    done = host.has_engine(DYING_DOCKERD).has("compose").set_up()

    assert done.returncode == 1
    assert "dockerd ended by itself" in done.stderr
    assert "the daemon says why" in done.stderr


def test_a_daemon_that_never_answers_is_given_up_with_its_last_lines(host: Host) -> None:
    done = host.has_engine().has("compose").set_up(STUB_MUTE="yes", STARTING_LIMIT_S="1")

    assert done.returncode == 1
    assert "waited 1 s for the engine to answer; it says last: Cannot connect to the engine" in done.stderr
    assert "the daemon says why" in done.stderr


def test_a_unit_that_does_not_start_shows_the_journal(host: Host) -> None:
    done = host.has_engine().has("compose").with_init("systemd").set_up(STUB_BROKEN="yes")

    assert done.returncode == 1
    assert "the journal says why" in done.stderr
