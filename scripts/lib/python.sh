# Python environments with packages of their own, apart from what the machine has. To be sourced after say.sh and packages.sh.
# shellcheck shell=bash disable=SC2154 # top: say.sh

# python_need REQUIREMENTS: prints the path of a Python that has what the file REQUIREMENTS names. Made once for each content of the file and each
# Python, and kept; one maker at a time. The file names everything: nothing else is fetched, whatever a package says it would like to have.
python_need() {
    local requirements=$1 key home
    packages_need python3:python3 python3-venv:python3-venv >&2
    key=$({ python3 --version && cat "$requirements"; } | sha256sum | cut -c 1-16)
    home=$(kept "python-$key" python_make "$requirements") || return 1
    printf '%s/bin/python\n' "$home"
}

python_make() {
    local home=$1 requirements=$2 log=$1.log
    step "Python packages of ${requirements#"$top"/}"
    rm -rf "$home"
    if ! { python3 -m venv "$home" && "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --requirement "$requirements"; } >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        rm -rf "$home"
        die "pip could not install what ${requirements#"$top"/} names; see above, and $log"
    fi
    : >"$home/complete"
}
