# Debian packages that are missing: found by the command that each one brings, installed in one go. To be sourced after say.sh.
# shellcheck shell=bash

# packages_need COMMAND:PACKAGE...: installs the packages whose commands are not there. Quick and silent when all are.
packages_need() {
    local pair missing=()
    for pair in "$@"; do
        if ! package_works "${pair%%:*}" && [[ " ${missing[*]} " != *" ${pair#*:} "* ]]; then missing+=("${pair#*:}"); fi
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    packages_install "${missing[@]}"
    for pair in "$@"; do
        package_works "${pair%%:*}" || die "package ${pair#*:} is installed, but its command '${pair%%:*}' does not work"
    done
}

# psql is a wrapper that can be there without the client behind it; a compiler is of no use without the C library's headers.
package_works() {
    case $1 in
        psql) psql --version >/dev/null 2>&1 ;;
        python3-venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
        cc) command -v cc >/dev/null && [ -e /usr/include/stdio.h ] ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

packages_install() {
    command -v apt-get >/dev/null || die "these Debian packages are needed and apt-get is not here to install them: $*"
    [ "$(id -u)" = 0 ] || die "these packages are missing: $*. As root: apt-get install $*"
    step "installing $*"
    packages_refresh
    local log
    log=$(mktemp)
    if ! DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y -qq --no-install-recommends "$@" >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        die "apt-get could not install: $*. See above; 'apt-get install $*' by hand shows more"
    fi
    rm -f "$log"
    case " $* " in *" docker-registry "*) registry_service_off ;; esac
}

# The package starts a registry for everybody on port 5000. Nobody here asked for that: whoever wants a registry starts one.
registry_service_off() {
    if [ -d /run/systemd/system ]; then
        systemctl disable --now docker-registry >/dev/null 2>&1 || warn "the service docker-registry could not be switched off"
    elif [ -x /etc/init.d/docker-registry ]; then
        /etc/init.d/docker-registry stop >/dev/null 2>&1 || true
    fi
}

# package_download DIRECTORY PACKAGE: one package file, without what it depends on.
package_download() {
    local log
    packages_refresh
    log=$(mktemp)
    if ! (cd "$1" && apt-get download -qq "$2" >"$log" 2>&1 </dev/null); then
        tail -n 8 "$log" >&2
        rm -f "$log"
        die "apt-get could not fetch $2"
    fi
    rm -f "$log"
}

# Once a run, and only when something has to be fetched.
packages_refresh() {
    [ -z "${packages_are_fresh:-}" ] || return 0
    apt-get -o DPkg::Lock::Timeout=120 update -qq >/dev/null 2>&1 </dev/null || warn "apt-get update reported an error; trying with the lists that are there"
    packages_are_fresh=1
}
