# Existing clients of Marathon that are not in Python: what they need is unpacked or installed below the cache, nothing of it into the machine but node.
# To be sourced after say.sh and packages.sh.
# shellcheck shell=bash disable=SC2154 # top: say.sh

# tools_need: prints a directory with the programs `promtool` and `haproxy`. Their packages are only unpacked: installed, they would start services.
tools_need() {
    local system home
    system=$(. /etc/os-release && printf '%s-%s' "${ID:-linux}" "${VERSION_ID:-0}")-$(dpkg --print-architecture)
    home=$(kept "tools-$system" tools_make) || return 1
    printf '%s/bin\n' "$home"
}

tools_make() {
    local home=$1 log=$1.log file
    step "promtool and haproxy"
    rm -rf "$home"
    mkdir -p "$home/bin" "$home/packages/partial"
    # promtool is one file; prometheus' other packages are for its pages.
    package_download "$home/packages" prometheus
    # What haproxy needs, as far as this machine does not have it.
    if ! apt-get install --download-only --reinstall --no-install-recommends -y -qq -o Dir::Cache::archives="$home/packages" -o Debug::NoLocking=1 \
        haproxy >"$log" 2>&1 </dev/null; then
        tail -n 8 "$log" >&2
        die "apt-get could not fetch haproxy"
    fi
    for file in "$home"/packages/*.deb; do
        dpkg-deb --extract "$file" "$home/root"
    done
    rm -rf "$home/packages"
    ln -s ../root/usr/bin/promtool "$home/bin/promtool"
    # Its libraries are not where the loader looks.
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' \
        "$(printf '%s:' "$home"/root/usr/lib/*-linux-gnu*)" "$home/root/usr/sbin/haproxy" >"$home/bin/haproxy"
    chmod +x "$home/bin/haproxy"
    for file in "promtool --version" "haproxy -v"; do
        # shellcheck disable=SC2086 # two words
        "$home/bin/"$file >"$log" 2>&1 </dev/null || {
            cat "$log" >&2
            die "$file does not work"
        }
    done
    : >"$home/complete"
}

# node_need DIRECTORY: prints the directory of the packages that DIRECTORY/package-lock.json names. Made once for each content of that file, and kept.
node_need() {
    local lock=$1/package-lock.json key home
    packages_need node:nodejs npm:npm >&2
    key=$({ node --version && cat "$lock"; } | sha256sum | cut -c 1-16)
    home=$(kept "node-$key" node_make "$1") || return 1
    printf '%s/node_modules\n' "$home"
}

node_make() {
    local home=$1 from=$2 log=$1.log
    step "npm packages of ${from#"$top"/}"
    rm -rf "$home"
    mkdir -p "$home"
    cp "$from/package.json" "$from/package-lock.json" "$home/"
    if ! npm ci --prefix "$home" --ignore-scripts --no-audit --no-fund >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        rm -rf "$home"
        die "npm could not install what ${from#"$top"/}/package-lock.json names; see above, and $log"
    fi
    : >"$home/complete"
}
