# shellcheck shell=bash
# Common to all scripts here; sourced, never run.
#
# Everything that these scripts download or make, and that would only cost time
# to make again, lives below one directory outside the clone. It is safe to
# delete at any time:
#
#   ${KULPRIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kulprit}
#     toolchains/NAME.tar.zst   root file system of a toolchain image
#     toolchains/NAME.toml      what it is: image id, compiler, linker, suite
#     demo/base.git             Debian's kernel source as one commit
#     demo/history-SEED.git     the demo's history for one seed
#     demo/history-SEED/        its truth.toml and job.toml
#     bench/                    work trees of the baseline; emptied by each run
#     bench-search/             trials of the search, by version of the engine
#     tools/                    cargo-fuzz, s3s-fs
#     fuzz/TARGET/              what a fuzz target found: corpus/, failures/, log
#     target/                   what cargo builds, shared by all clones
#     test/                     objects, repositories and compiler cache of the tests
#     soak/                     the same of the soak, with its histories
#     git/ ccache/ seeds/       the same for `kulprit run`
#     locks/ logs/

KULPRIT_CACHE=${KULPRIT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kulprit}
mkdir -p "$KULPRIT_CACHE/locks" "$KULPRIT_CACHE/logs"

# The clone, whatever the current directory is.
KULPRIT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export KULPRIT_CACHE KULPRIT_ROOT
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$KULPRIT_CACHE/target}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

# room GIB DIR...: ends here if less is free there. Agents take no build on a full disk, and a search
# would wait without end.
room() {
    local least=$1 dir free
    shift
    for dir in "$@"; do
        free=$(($(df --output=avail --block-size=1G "$dir" | tail -n 1)))
        [ "$free" -ge "$least" ] || die "$free GiB are free in $dir, and $least GiB are needed." \
            "Please make room; $KULPRIT_CACHE ($(du -sh "$KULPRIT_CACHE" | cut -f 1)) is safe to delete"
    done
}

# Holds the named lock until the script ends, so that two runs take turns and
# the second finds the work done.
lock() {
    exec 9>"$KULPRIT_CACHE/locks/$1"
    if ! flock --nonblock 9; then
        say "waiting for another $1 to finish"
        flock 9
    fi
}

# Prints where long output goes, runs the command, shows the end on failure.
logged() {
    local log="$KULPRIT_CACHE/logs/$1.log"
    shift
    # 9 is our lock: a daemon started by the command must not inherit it.
    if ! "$@" >"$log" 2>&1 9>&-; then
        tail -n 20 "$log" >&2
        die "failed to run: $* (all output: $log)"
    fi
}

apt_is_here() { command -v apt-get >/dev/null; }
