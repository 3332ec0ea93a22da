#!/usr/bin/env bash
# Runs every test, on a machine that has Rust and nothing else: first installs what tests use and is missing.
# Arguments go to `cargo test`, such as `tests/run.sh --test gateway basic`.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
# Debian has venv and the pip in it as a package of their own
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(missing-venv:python3-venv)
if ! curl --version 2>/dev/null | grep -q HTTP2; then missing+=(missing-http2:curl); fi
tests/packages.sh gcc:gcc make:make git:git curl:curl python3:python3 chromium:chromium chromedriver:chromium-driver \
    node:nodejs npm:npm "${missing[@]}"

venv=target/test-venv
if ! cmp -s tests/requirements.txt "$venv/installed.txt"; then
    python3 -m venv --clear "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/requirements.txt
    cp tests/requirements.txt "$venv/installed.txt"
fi
export PORTCULLIS_TEST_PYTHON="$PWD/$venv/bin/python"

# what the pages in docs/ install
wheels=target/test-wheels
if ! cmp -s tests/guides.txt "$wheels/downloaded.txt"; then
    rm -rf "$wheels"
    "$venv/bin/pip" download --quiet --disable-pip-version-check --only-binary :all: --dest "$wheels" \
        --requirement tests/guides.txt
    cp tests/guides.txt "$wheels/downloaded.txt"
fi
export PORTCULLIS_TEST_WHEELS="$PWD/$wheels"

idp=target/test-idp
if ! cmp -s tests/oidc/package-lock.json "$idp/installed.json"; then
    mkdir -p "$idp"
    cp tests/oidc/package.json tests/oidc/package-lock.json "$idp"
    npm ci --prefix "$idp" --silent --no-audit --no-fund --ignore-scripts
    cp tests/oidc/package-lock.json "$idp/installed.json"
fi

# beside real servers, for the tests of the store
if [ $# -gt 0 ]; then
    exec tests/databases.sh cargo test --locked "$@"
fi
tests/databases.sh cargo test --locked -- --skip timing::
# those that tell by time run one by one, or they measure what the others do to the machine
exec cargo test --locked --test gateway timing:: -- --test-threads=1
