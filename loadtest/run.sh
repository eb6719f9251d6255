#!/usr/bin/env bash
# Compares Ringway with nginx, haproxy and two blind byte relays on this machine: one command, no arguments needed.
#
#   loadtest/run.sh                    everything, about eight minutes once it is built
#   loadtest/run.sh --quick            a look, under a minute
#   loadtest/run.sh --cases call@32 --rounds 9 --seconds 2
#   loadtest/run.sh --help             all options
#
# RINGWAY_BIN names the binary to test; otherwise it is built from this tree. Results: loadtest/out/report.json.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

fail() {
    echo "loadtest: $*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs)"

# A run that names its peers needs only those; one that says nothing needs all.
takes_part() {
    [[ " $* " != *" --peers"* || " ${*:2} " == *"$1"* ]]
}

# Debian keeps nginx and haproxy where only root's PATH looks.
PATH="$PATH:/usr/sbin:/sbin"
missing=()
for peer in nginx haproxy; do
    if takes_part "$peer" "$@" && ! command -v "$peer" >/dev/null; then missing+=("$peer"); fi
done
if ((${#missing[@]})); then
    command -v apt-get >/dev/null || fail "${missing[*]} missing, and there is no apt-get here: install by hand, or leave out with --peers"
    sudo=()
    if [[ $EUID -ne 0 ]]; then
        command -v sudo >/dev/null || fail "${missing[*]} missing: run 'apt-get install ${missing[*]}' as root, or leave out with --peers"
        sudo=(sudo)
    fi
    echo "loadtest: installing ${missing[*]}" >&2
    # No start of the services: the load test starts its own, on loopback, and ends them.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"' sh "${missing[@]}" >&2 ||
        fail "apt-get could not install ${missing[*]}: install by hand, or leave out with --peers"
fi

if [[ -n ${RINGWAY_BIN:-} ]]; then RINGWAY_BIN=$(realpath "$RINGWAY_BIN"); fi
cd "$root"
cargo build --release --quiet --package ringway-loadtest
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
if [[ -z ${RINGWAY_BIN:-} ]]; then
    export RINGWAY_BIN=$target/release/ringway
    if takes_part ringway "$@"; then cargo build --release --quiet --package ringway; fi
fi

exec "$target/release/ringway-loadtest" bench --out "$here/out" "$@"
