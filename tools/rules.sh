# shellcheck shell=sh
# When the set-up may change a host. Sourced by the scripts beside it; does nothing by itself.
#
#   root on Debian or Ubuntu, nobody at the keyboard    it installs and starts what is missing, saying so and how to undo it
#   the same at a terminal                              it says what it would do and asks; no answer means no
#   anybody else, anywhere else                         one message says what to install, with this platform's command
#
# Nobody is at the keyboard without a terminal, with CI=true, and when the script was called with `install`: that is the
# answer given beforehand. SETUP_ROOT is where the host's files begin, for trials.

SETUP_ROOT=${SETUP_ROOT:-}

# The distribution as /etc/os-release names it, with the ones that it is like: "ubuntu debian".
distribution() {
    if [ "$(uname -s)" = Darwin ]; then
        echo macos
    elif [ -r "$SETUP_ROOT/etc/os-release" ]; then
        # shellcheck disable=SC1091  # the host's own file
        (ID="" ID_LIKE="" && . "$SETUP_ROOT/etc/os-release" && echo "$ID $ID_LIKE")
    fi
}

is_debian() {
    case " $(distribution) " in
        *" debian "* | *" ubuntu "*) command -v apt-get >/dev/null 2>&1 ;;
        *) false ;;
    esac
}

is_root() {
    [ "$(id -u)" = 0 ]
}

may_install() {
    is_root && is_debian
}

# Whether it may be done: asked where there is somebody to ask. $1 is the question.
agreed() {
    if [ "${consent:-}" = given ] || [ "${CI:-}" = true ] || [ ! -t 0 ]; then
        return 0
    fi
    printf 'setup: %s [y/N] ' "$1" >&2
    read -r answer || answer=""
    case "$answer" in
        [yY] | [yY][eE][sS]) return 0 ;;
        *) return 1 ;;
    esac
}

# What a command says is of interest only when it fails.
quietly() {
    said=$("$@" 2>&1) || { echo "setup: '$*' failed; it said last:" >&2; echo "$said" | tail -n 20 >&2; return 1; }
}

# A command that might hang gets twenty seconds, where there is something that ends it.
briefly() {
    if command -v timeout >/dev/null 2>&1; then
        timeout 20 "$@"
    else
        "$@"
    fi
}

has_package() {
    apt-cache show "$1" 2>/dev/null | grep -q .
}

# Another apt that runs is waited for, two minutes at most.
install_packages() {
    echo "setup: installing $* (apt-get install); to undo: apt-get purge $*"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends "$@"
}

update_packages() {
    quietly apt-get -q -o DPkg::Lock::Timeout=120 update
}
