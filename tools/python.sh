#!/bin/sh
# Makes .venv with the project and its development tools in it. Not for daily use: `make setup` calls it when
# pyproject.toml has changed. Installs Python and its venv module where they are missing and rules.sh allows it.
set -eu
cd "$(dirname "$0")/.."
# shellcheck source=tools/rules.sh
. tools/rules.sh

fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

is_whole() {
    fits "$1" && "$1" -c 'import ensurepip, venv' 2>/dev/null
}

first_that() {
    holds=$1
    shift
    for name; do
        if command -v "$name" >/dev/null 2>&1 && "$holds" "$name"; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# The one that was named, else a distribution's own: that is compiled with more optimizations than those of version
# managers mostly are, and the simulator is the faster for it.
candidates="/usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11"
find_python() {
    # shellcheck disable=SC2086 # a list of words
    first_that fits ${PYTHON:-} || first_that is_whole $candidates || first_that fits $candidates || true
}

install() {
    may_install && agreed "Python 3.11 with its venv module is missing. Install $* by apt-get?" || return 1
    update_packages && install_packages "$@"
}

python=$(find_python)
if [ -z "$python" ] && install python3 python3-venv; then
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
    if ! is_whole "$python"; then
        if ! install python3-venv; then
            echo "setup: $python has no venv module. Debian, Ubuntu: apt-get install python3-venv" >&2
            exit 1
        fi
    fi
    "$python" -m venv .venv
fi

echo "setup: installing Blackstart and its tools into .venv"
# A distribution's Python brings a pip and a setuptools of its own age, with the defects that were mended since.
.venv/bin/python -m pip --quiet --disable-pip-version-check --no-input install --upgrade "pip>=26" "setuptools>=80"
.venv/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input install --editable '.[dev]'
