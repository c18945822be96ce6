#!/bin/sh
# Looks for a container engine that answers and for a Compose tool; installs and starts what is missing where rules.sh
# allows it, and says what to do where not. `tools/engine.sh install` is called by hand: it is the consent.
set -eu
# shellcheck source=tools/rules.sh
. "$(dirname "$0")/rules.sh"

STARTING_LIMIT_S=${STARTING_LIMIT_S:-60}
DAEMON_LOG=$SETUP_ROOT/var/log/blackstart-dockerd.log
DAEMON_PID=$SETUP_ROOT/run/blackstart-dockerd.pid
SERVICE_LOG=$SETUP_ROOT/var/log/docker.log

[ "${1:-}" != install ] || consent=given

# Whether an engine answers; what was said otherwise is in $refusal.
answers() {
    if command -v docker >/dev/null 2>&1; then
        refusal=$(briefly docker version --format '{{.Server.Version}}' 2>&1) && return 0
    else
        refusal=$(briefly "$(dirname "$0")/../.venv/bin/python" -c \
            'import docker; docker.from_env(timeout=15).ping()' 2>&1) && return 0
    fi
    refusal=$(echo "$refusal" | tail -n 1)
    return 1
}

compose_works() {
    briefly docker compose version >/dev/null 2>&1 || briefly docker-compose version >/dev/null 2>&1
}

# An engine that is meant to be somewhere else: installing one here would not help.
elsewhere() {
    if [ -n "${DOCKER_HOST:-}" ] && [ "$DOCKER_HOST" != unix:///var/run/docker.sock ]; then
        echo "DOCKER_HOST=$DOCKER_HOST"
    elif command -v docker >/dev/null 2>&1; then
        context=$(briefly docker context inspect --format '{{.Name}}' 2>/dev/null) || context=default
        [ "${context:-default}" = default ] || echo "the docker context $context"
    fi
}

# The one message. $1 is what is the matter, the rest are the lines that say what to do.
advise() {
    echo "setup: $1" >&2
    shift
    for line in "$@"; do
        echo "  $line" >&2
    done
    echo "  then 'blackstart doctor' shows what this host can do" >&2
    exit 1
}

# The command that installs engine and Compose here, for a person to give.
install_command() {
    case " $(distribution) " in
        *" macos "*) echo "brew install --cask docker   (Docker Desktop; then start it)" ;;
        *" debian "* | *" ubuntu "*) echo "sudo tools/engine.sh install   (docker.io, Compose and iptables, by apt-get)" ;;
        *" fedora "*) echo "sudo dnf install moby-engine docker-compose && sudo systemctl enable --now docker" ;;
        *" arch "*) echo "sudo pacman -S docker docker-compose && sudo systemctl enable --now docker" ;;
        *suse*) echo "sudo zypper install docker docker-compose && sudo systemctl enable --now docker" ;;
        *" alpine "*) echo "sudo apk add docker docker-cli-compose && sudo service docker start" ;;
        *) echo "Docker Engine 20.10 or newer and Docker Compose: https://docs.docker.com/engine/install/" ;;
    esac
}

engine_packages() {
    packages="docker.io iptables ca-certificates"
    # Newer releases have the command in a package of its own.
    has_package docker-cli && packages="$packages docker-cli"
    # Where the kernel has no overlay file system the engine needs this one, or it copies every layer.
    grep -q 'overlay$' "$SETUP_ROOT/proc/filesystems" || modprobe -q overlay 2>/dev/null ||
        packages="$packages fuse-overlayfs"
    echo "$packages"
}

compose_package() {
    # Ubuntu's name and that of Debian, whose package is version 1 in Debian 12 and version 2 from Debian 13 on.
    has_package docker-compose-v2 && echo docker-compose-v2 || echo docker-compose
}

how_started() {
    if [ -d "$SETUP_ROOT/run/systemd/system" ]; then
        echo systemd
    elif command -v service >/dev/null 2>&1 && [ -e "$SETUP_ROOT/etc/init.d/docker" ]; then
        echo service
    else
        echo background
    fi
}

start_engine() {
    how=$(how_started)
    if [ "$how" = systemd ]; then
        echo "setup: starting the container engine (systemctl start docker); to undo: systemctl stop docker"
        quietly systemctl start docker || show_log
    elif [ "$how" = service ]; then
        echo "setup: starting the container engine (service docker start); to undo: service docker stop"
        # Its script wants limits raised that a container may not raise: then the engine is started without it.
        quietly service docker start || how=background
    fi
    if [ "$how" = background ]; then
        echo "setup: starting dockerd in the background; its log is $DAEMON_LOG; to undo: kill \$(cat $DAEMON_PID)"
        # In a session of its own, so that the end of this shell does not end it.
        setsid dockerd >"$DAEMON_LOG" 2>&1 </dev/null &
        echo $! >"$DAEMON_PID"
    fi
    waited_s=0
    until answers; do
        if [ "$how" = background ] && ! kill -0 "$(cat "$DAEMON_PID")" 2>/dev/null; then
            echo "setup: dockerd ended by itself" >&2
            show_log
        fi
        if [ "$waited_s" -ge "$STARTING_LIMIT_S" ]; then
            echo "setup: waited $STARTING_LIMIT_S s for the engine to answer; it says last: $refusal" >&2
            show_log
        fi
        sleep 1
        waited_s=$((waited_s + 1))
    done
}

# Shows the end of the engine's log, and ends this.
show_log() {
    case "$how" in
        systemd) log="journalctl --no-pager -n 20 -u docker" ;;
        service) log="tail -n 20 $SERVICE_LOG" ;;
        *) log="tail -n 20 $DAEMON_LOG" ;;
    esac
    echo "setup: the end of its log ($log):" >&2
    $log >&2 || true
    exit 1
}

get_engine() {
    away=$(elsewhere)
    if [ -n "$away" ]; then
        advise "no container engine answers at $away: $refusal" \
            "start that engine, or go back to this host's: unset DOCKER_HOST; docker context use default"
    fi
    case "$refusal" in
        *[Pp]"ermission denied"*)
            advise "a container engine runs, and this user may not speak to it: $refusal" \
                "sudo usermod -aG docker $(id -un), and log in anew (whoever is in that group is as good as root)" ;;
    esac
    if command -v dockerd >/dev/null 2>&1; then
        is_root || advise "the container engine is installed and does not answer: $refusal" \
            "sudo systemctl start docker   (without systemd: sudo tools/engine.sh install)"
        agreed "The container engine is installed and does not run. Start it?" ||
            advise "nothing was started" "systemctl start docker   (without systemd: tools/engine.sh install)"
        start_engine
        return
    fi
    may_install || advise "there is no container engine" "$(install_command)"
    agreed "There is no container engine. Install docker.io, Compose and iptables by apt-get, and start the engine?" ||
        advise "nothing was installed" "tools/engine.sh install   does it"
    consent=given # Compose was asked for with the engine
    update_packages
    # shellcheck disable=SC2046  # a list of words
    install_packages $(engine_packages)
    echo "setup: what the engine will have stored stays after that: rm -r /var/lib/docker"
    answers || start_engine # the package starts it where an init system runs
}

get_compose() {
    may_install || advise "neither 'docker compose' nor 'docker-compose' works" "$(install_command)"
    agreed "There is no Compose tool. Install it by apt-get?" ||
        advise "nothing was installed" "tools/engine.sh install   does it"
    update_packages
    install_packages "$(compose_package)"
    compose_works || advise "the Compose tool was installed and does not work" "docker compose version   says why"
}

answers || get_engine
compose_works || get_compose
