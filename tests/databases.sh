#!/usr/bin/env bash
# Runs a command beside a PostgreSQL and a MariaDB of its own: on free ports, in a temporary folder, gone when it ends.
# Both are Debian's packages, installed where they are missing and never started as services; and so are the programs that
# tests start themselves: Redis, HAProxy, and what checks the files in deploy/. Valkey comes by tests/requirements.txt.
#   tests/databases.sh cargo test --lib store
# The command finds them by PORTCULLIS_TEST_POSTGRES and PORTCULLIS_TEST_MYSQL.
set -euo pipefail
[ $# -gt 0 ] || { echo "usage: $0 COMMAND…" >&2; exit 2; }

pg_bin() { find /usr/lib/postgresql -maxdepth 3 -name initdb -printf '%h\n' 2>/dev/null | sort -V | tail -1; }

missing=()
[ -n "$(pg_bin)" ] || missing+=(postgresql)
command -v mariadbd >/dev/null || [ -x /usr/sbin/mariadbd ] || missing+=(mariadb-server)
PATH=$PATH:/usr/sbin command -v haproxy >/dev/null || missing+=(haproxy)
command -v promtool >/dev/null || missing+=(prometheus)
command -v docker-compose >/dev/null || missing+=(docker-compose)
command -v redis-server >/dev/null || missing+=(redis-server)
if [ ${#missing[@]} -gt 0 ]; then
    echo "tests/databases.sh: installing ${missing[*]}" >&2
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
    # without it Debian's packages start their services
    policy=/usr/sbin/policy-rc.d
    made_policy=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
        made_policy=yes
    fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    if [ -n "$made_policy" ]; then "${as_root[@]}" rm -f "$policy"; fi
fi

# Servers refuse to be root.
as() {
    local user=$1
    shift
    if [ "$(id -u)" -eq 0 ]; then runuser -u "$user" -- "$@"; else "$@"; fi
}

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

place=$(mktemp -d /tmp/portcullis-databases.XXXXXX)
chmod 755 "$place"
mkdir "$place/postgres" "$place/mysql"
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$place/postgres"
    chown mysql "$place/mysql"
fi

postgres_pid= mysql_pid=
stop() {
    local status=$?
    trap - EXIT INT TERM
    for pid in $postgres_pid $mysql_pid; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in $postgres_pid $mysql_pid; do wait "$pid" 2>/dev/null || true; done
    rm -rf "$place"
    exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

bin=$(pg_bin)
as postgres "$bin/initdb" -D "$place/postgres/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync \
    >"$place/initdb.log" 2>&1 || { cat "$place/initdb.log" >&2; exit 1; }
postgres_port=$(free_port)
# nothing here outlives the machine, so nothing waits for a disk
as postgres "$bin/postgres" -D "$place/postgres/data" -p "$postgres_port" -k "$place/postgres" \
    -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=400 >"$place/postgres.log" 2>&1 &
postgres_pid=$!

mysql_user=$(id -un)
if [ "$(id -u)" -eq 0 ]; then mysql_user=mysql; fi
mariadb-install-db --no-defaults --user="$mysql_user" --datadir="$place/mysql/data" --skip-test-db \
    --auth-root-authentication-method=normal >"$place/install.log" 2>&1 || { cat "$place/install.log" >&2; exit 1; }
mysql_port=$(free_port)
PATH=$PATH:/usr/sbin as mysql mariadbd --no-defaults --datadir="$place/mysql/data" --port="$mysql_port" \
    --bind-address=127.0.0.1 --socket="$place/mysql/socket" --pid-file="$place/mysql/pid" --max-connections=400 \
    --innodb-flush-log-at-trx-commit=0 --skip-log-bin >"$place/mysql.log" 2>&1 &
mysql_pid=$!

# $1: which, $2: its process, then what succeeds once it answers
await() {
    local name=$1 pid=$2
    shift 2
    for _ in $(seq 300); do
        if "$@" >/dev/null 2>&1; then return; fi
        if ! kill -0 "$pid" 2>/dev/null; then break; fi
        sleep 0.1
    done
    echo "tests/databases.sh: $name does not start" >&2
    cat "$place/$name.log" >&2
    exit 1
}
await postgres "$postgres_pid" "$bin/pg_isready" -q -h 127.0.0.1 -p "$postgres_port"
await mysql "$mysql_pid" mariadb-admin --no-defaults --protocol=tcp -h 127.0.0.1 -P "$mysql_port" -u root ping

export PORTCULLIS_TEST_POSTGRES="postgres://postgres@127.0.0.1:$postgres_port/postgres"
export PORTCULLIS_TEST_MYSQL="mysql://root@127.0.0.1:$mysql_port/mysql"
export PORTCULLIS_TEST_DATABASES=1
"$@"
