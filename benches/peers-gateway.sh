#!/usr/bin/env bash
# Loads the users and tokens of a measurement into a store, then becomes the gateway.
#   peers-gateway.sh CONFIG AUTH HTPASSWD TOKENS ROLE
# HTPASSWD has users with bcrypt hashes; TOKENS has "token role" a line.
set -euo pipefail
config=$1 auth=$2 htpasswd=$3 tokens=$4 role=$5
cd "$(dirname "$config")"

# YAML has no conditions: the listener's TLS is for the workloads with TLS alone
sed -i '/# only where: false$/d' "$config"

if [ ! -f "loaded.$auth" ]; then
    case $auth in
    basic)
        "$PORTCULLIS" import htpasswd "$htpasswd" --config "$config"
        ;;
    token)
        # issuing 100,000 tokens one by one would take minutes: the rows are written as the store keeps them
        "$PORTCULLIS" user add "peers-$role" --role "$role" --password-stdin --config "$config" <<<"not used here"
        python3 - "$tokens" "peers-$role" <<'PYTHON'
import hashlib, sqlite3, sys, time
tokens, owner = sys.argv[1:]
store = sqlite3.connect("portcullis.db", timeout=30)
with open(tokens) as lines, store:
    digests = (hashlib.sha256(line.split()[0].encode()).digest() for line in lines)
    store.executemany(
        "INSERT INTO portcullis_tokens (digest, owner_kind, owner_name, issued_at, expires_at) VALUES (?, 'user', ?, ?, NULL)",
        ((digest, owner, int(time.time())) for digest in digests))
PYTHON
        ;;
    esac
    touch "loaded.$auth"
fi
exec "$PORTCULLIS" run --config "$config"
