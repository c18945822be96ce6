#!/bin/sh
# Looks for a container engine and a Compose tool. Where nobody is at the keyboard (no terminal, or CI=true), as root on
# Debian and Ubuntu, it installs and starts what is missing and says so. On a person's machine it changes nothing unless
# it is called as `tools/engine.sh install`: it says what to do.
set -eu

STARTING_LIMIT_S=60

answers() {
    if command -v docker >/dev/null 2>&1; then
        timeout 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
    else
        timeout 20 "$(dirname "$0")/../.venv/bin/python" -c \
            'import docker; docker.from_env(version="1.41", timeout=15).ping()' >/dev/null 2>&1
    fi
}

compose() {
    timeout 20 docker compose version >/dev/null 2>&1 || timeout 20 docker-compose version >/dev/null 2>&1
}

is_local() {
    [ -z "${DOCKER_HOST:-}" ] || [ "$DOCKER_HOST" = unix:///var/run/docker.sock ]
}

may_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && is_local
}

# What a command says is of interest only when it fails.
quietly() {
    said=$("$@" 2>&1) || { echo "$said" | tail -n 20 >&2; return 1; }
}

install() {
    echo "setup: installing $* (apt-get install)"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -q -y install --no-install-recommends "$@"
}

install_engine() {
    quietly apt-get -q update
    # Where the kernel has no overlay file system the engine needs this one, or it copies every layer.
    grep -q 'overlay$' /proc/filesystems && extra="" || extra=fuse-overlayfs
    # Newer releases have the command in a package of its own.
    apt-cache show docker-cli >/dev/null 2>&1 && extra="$extra docker-cli"
    # shellcheck disable=SC2086  # a list of words
    install docker.io iptables ca-certificates $extra
}

install_compose() {
    quietly apt-get -q update
    # Debian's name, and that of Ubuntu's newer releases.
    if apt-cache show docker-compose-v2 >/dev/null 2>&1; then
        install docker-compose-v2
    else
        install docker-compose
    fi
}

start_engine() {
    echo "setup: starting the container engine"
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        # Without an init system: a daemon of its own session, so that the end of this shell does not end it.
        setsid dockerd >/var/log/dockerd.log 2>&1 </dev/null &
        daemon=$!
    fi
    waited_s=0
    until answers; do
        if [ -n "${daemon:-}" ] && ! kill -0 "$daemon" 2>/dev/null; then
            echo "setup: dockerd ended by itself. Its log ends with:" >&2
            tail -n 15 /var/log/dockerd.log >&2
            exit 1
        fi
        if [ "$waited_s" -ge "$STARTING_LIMIT_S" ]; then
            echo "setup: waited $STARTING_LIMIT_S s for the engine to answer, and it does not. Its log ends with:" >&2
            { tail -n 15 /var/log/dockerd.log || journalctl --no-pager -n 15 -u docker; } 2>/dev/null >&2
            exit 1
        fi
        sleep 1
        waited_s=$((waited_s + 1))
    done
}

advise() {
    echo "setup: $1" >&2
    echo "  Debian, Ubuntu:  sudo tools/engine.sh install   (docker.io, docker-compose, iptables)" >&2
    echo "  elsewhere:       install Docker Engine 20.10 or newer and Docker Compose, and start the engine" >&2
    echo "  then:            blackstart doctor   shows what this machine can do" >&2
    exit 1
}

if [ "${1:-}" = install ] || [ "${CI:-}" = true ] || [ ! -t 0 ]; then
    unattended=yes
else
    unattended=no
fi

if ! answers; then
    if [ "$unattended" = yes ] && may_install; then
        command -v dockerd >/dev/null 2>&1 || install_engine
        start_engine
    elif command -v docker >/dev/null 2>&1; then
        advise "no container engine answers: is it started, and may this user speak to it (group docker)?"
    else
        advise "there is no container engine."
    fi
fi
if ! compose; then
    if [ "$unattended" = yes ] && may_install; then
        install_compose
    else
        advise "neither 'docker compose' nor 'docker-compose' is here."
    fi
fi
