# Messages and the places that the scripts share. To be sourced, not run.
# shellcheck shell=bash

# Administration tools live in sbin, which a plain root shell may leave out.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

# The top of the source tree.
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export top

# Where what is fetched and built once is kept for later runs.
# shellcheck disable=SC2034 # for who sources this
cache="${XTAO_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/xtao}"

say() { printf '%s\n' "$*"; }
step() { printf '==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "$1 must run as root: it manages containers, mounts and the name server's port. Try: sudo $0"
}

# kept NAME MAKER [ARGUMENT...]: prints the directory NAME below the cache, which `MAKER DIRECTORY ARGUMENT...` makes once and marks by a file `complete`
# in it; one maker of a kind at a time. False when it cannot be made; the maker has said why.
kept() {
    local home=$cache/$1 maker=$2
    shift 2
    mkdir -p "$cache"
    (
        flock 9
        [ -e "$home/complete" ] || "$maker" "$home" "$@" >&2
    ) 9>"$cache/$maker.lock" || return 1
    printf '%s\n' "$home"
}

# await SECONDS WHAT COMMAND...: runs COMMAND until it succeeds; false after SECONDS.
await() {
    local seconds=$1 what=$2 end
    shift 2
    end=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || {
            warn "$what: not within $seconds seconds"
            return 1
        }
        sleep 0.1
    done
}

# alive PID NAME: is PID a process whose command is NAME? (A pid file may be older than the process that has its number now.)
alive() {
    [ -n "$1" ] && [ -r "/proc/$1/comm" ] && [ "$(cat "/proc/$1/comm" 2>/dev/null)" = "$2" ] && ! has_ended "$1"
}

# has_ended PID: all of it, and only nobody has waited for it yet.
has_ended() {
    awk '/^State:/ { ended = $2 == "Z" } /^Threads:/ { exit !(ended && $2 <= 1) }' "/proc/$1/status" 2>/dev/null
}

# end_process PID NAME SECONDS: asks a process to end and waits for it; kills it after SECONDS.
end_process() {
    local pid=$1 name=$2 seconds=$3
    alive "$pid" "$name" || return 0
    kill "$pid" 2>/dev/null || return 0
    local end=$((SECONDS + seconds))
    while alive "$pid" "$name"; do
        if [ "$SECONDS" -ge "$end" ]; then
            warn "$name (process $pid) did not end within $seconds seconds; it is killed"
            kill -9 "$pid" 2>/dev/null || true
            return 0
        fi
        sleep 0.1
    done
}
