# A Docker daemon to work with: the one that runs, or one that is started here. To be sourced after say.sh and packages.sh.
# shellcheck shell=bash

# docker_answers: does the daemon behind DOCKER_HOST (or the default socket) answer?
docker_answers() {
    docker version --format '{{.Server.Version}}' >/dev/null 2>&1 </dev/null
}

# docker_need STATE_DIR [DATA_ROOT]: a daemon that answers, with DOCKER_HOST exported. One that is started here leaves its process id in
# STATE_DIR/dockerd.pid and writes STATE_DIR/dockerd.log. DATA_ROOT: a daemon of its own below that directory, whatever else runs.
docker_need() {
    local state=$1 root=${2:-}
    if [ -n "$root" ]; then
        export DOCKER_HOST="unix://$root/docker.sock"
    else
        export DOCKER_HOST="${DOCKER_HOST:-unix:///var/run/docker.sock}"
    fi
    docker_answers && return 0
    case $DOCKER_HOST in
        unix:///var/run/docker.sock | unix:///run/docker.sock) ;;
        unix://"${root:-/nowhere}"/*) ;;
        *) die "DOCKER_HOST is $DOCKER_HOST, and no Docker daemon answers there. Start it, or unset DOCKER_HOST to use this machine's own" ;;
    esac
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        step "starting Docker (systemctl start docker)"
        systemctl start docker || die "systemd could not start Docker: journalctl -u docker"
    else
        step "starting Docker (no systemd runs here: dockerd in the background, log $state/dockerd.log)"
        docker_start "$state" "$root"
    fi
    await 60 "Docker's answer on $DOCKER_HOST" docker_answers || die "Docker does not answer on $DOCKER_HOST; its log: $state/dockerd.log"
}

docker_start() {
    local state=$1 root=$2 options=()
    mkdir -p "$state"
    if [ -n "$root" ]; then
        mkdir -p "$root"
        options=(--data-root "$root/data" --exec-root "$root/exec" --pidfile "$root/docker.pid" --host "unix://$root/docker.sock")
    else
        # A daemon that was killed leaves this behind and would not start again.
        local old
        old=$(cat /var/run/docker.pid 2>/dev/null || true)
        alive "$old" dockerd || rm -f /var/run/docker.pid
    fi
    setsid dockerd "${options[@]}" >>"$state/dockerd.log" 2>&1 </dev/null &
    local pid=$!
    # With job control off, setsid replaces itself: the background job is the daemon.
    printf '%s\n' "$pid" >"$state/dockerd.pid"
    local end=$((SECONDS + 60))
    until docker_answers; do
        if [ ! -d "/proc/$pid" ]; then
            tail -n 8 "$state/dockerd.log" >&2
            rm -f "$state/dockerd.pid"
            die "Docker did not start; the end of its log is above. It needs root, overlayfs, iptables and mounted cgroups"
        fi
        [ "$SECONDS" -lt "$end" ] || die "Docker does not answer after 60 seconds; its log: $state/dockerd.log"
        sleep 0.1
    done
}

# docker_stop STATE_DIR: ends the daemon that docker_need started, and nothing else.
docker_stop() {
    local state=$1 pid
    pid=$(cat "$state/dockerd.pid" 2>/dev/null || true)
    [ -n "$pid" ] || return 0
    if alive "$pid" dockerd; then
        step "stopping the Docker daemon that was started here"
        end_process "$pid" dockerd 30
    fi
    rm -f "$state/dockerd.pid"
}
