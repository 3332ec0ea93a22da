#!/usr/bin/env bash
# Measures the gateway beside other proxies, with a harness that is not part of this repository.
# Its path is in PEERS_PY; the arguments are its own:
#   PEERS_PY=../shared/bench/peers.py benches/peers.sh --peers nginx,envoy,gateway --workloads W1,W2,W4 --json out.json
# Build first: cargo build --release
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
peers=${PEERS_PY:-$here/../../shared/bench/peers.py}
export PORTCULLIS=${PORTCULLIS:-$here/../target/release/portcullis}
if [ ! -x "$PORTCULLIS" ]; then
    echo "no $PORTCULLIS: cargo build --release" >&2
    exit 2
fi
if [ ! -f "$peers" ]; then
    echo "no $peers: set PEERS_PY to the harness" >&2
    exit 2
fi
exec python3 "$peers" run "$@" \
    --gateway "$here/peers-gateway.sh {{config}} {{auth}} {{htpasswd}} {{tokens}} {{role}}" \
    --gateway-config "$here/peers.yaml.tmpl"
