# The Rust toolchain: looked for, never installed behind anyone's back. To be sourced after say.sh.
# shellcheck shell=bash disable=SC2154 # top: say.sh

# The oldest toolchain that builds the crate, as Cargo.toml says.
rust_wanted() {
    sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$top/Cargo.toml"
}

# rust_need: puts cargo on the PATH, or says which command gets one that is new enough.
rust_need() {
    local wanted found
    wanted=$(rust_wanted)
    command -v cargo >/dev/null || PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    { command -v cargo && command -v rustc; } >/dev/null || die "no Rust toolchain here; $wanted or newer is needed. It comes with
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy
and then, in a new shell, run this again (Debian's own rustc is too old)"
    found=$(cd "$top" && rustc --version 2>/dev/null | awk '{print $2}')
    if [ "$(printf '%s\n%s\n' "$wanted" "${found:-0}" | sort -V | head -n 1)" != "$wanted" ]; then
        if command -v rustup >/dev/null; then
            die "the Rust toolchain is ${found:-unknown}; $wanted or newer is needed. It comes with
    rustup toolchain install $wanted && rustup default $wanted"
        fi
        die "the Rust toolchain is ${found:-unknown}; $wanted or newer is needed. It comes with
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy"
    fi
}
