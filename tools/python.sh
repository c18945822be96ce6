#!/bin/sh
# Makes .venv with the project and its development tools in it. Not for daily use: `make setup` calls it when
# pyproject.toml has changed. On Debian and Ubuntu, as root, it installs the venv module where that is missing.
set -eu
cd "$(dirname "$0")/.."

fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if command -v "$name" >/dev/null 2>&1 && fits "$name"; then
            command -v "$name"
            return
        fi
    done
}

may_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1
}

# What a command says is of interest only when it fails.
quietly() {
    said=$("$@" 2>&1) || { echo "$said" | tail -n 20 >&2; return 1; }
}

install() {
    echo "setup: installing $* (apt-get install)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -y install --no-install-recommends "$@" >/dev/null 2>&1 && return
    quietly apt-get -q update
    quietly apt-get -q -y install --no-install-recommends "$@"
}

python=$(find_python)
if [ -z "$python" ] && may_install; then
    install python3 python3-venv
    python=$(find_python)
fi
if [ -z "$python" ]; then
    echo "setup: no Python 3.11 or newer on the PATH. Install one (Debian 12, Ubuntu 24.04: apt-get install python3" \
        "python3-venv) or name it: make PYTHON=/path/to/python3 setup" >&2
    exit 1
fi

if ! { [ -x .venv/bin/python ] && fits .venv/bin/python; }; then
    echo "setup: making .venv with $python ($("$python" --version))"
    rm -rf .venv
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        if may_install; then
            install python3-venv
        else
            echo "setup: $python has no venv module. Debian, Ubuntu: apt-get install python3-venv" >&2
            exit 1
        fi
    fi
    "$python" -m venv .venv
fi

echo "setup: installing Blackstart and its tools into .venv"
.venv/bin/python -m pip --quiet --disable-pip-version-check --no-input install --editable '.[dev]'
