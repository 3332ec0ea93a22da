#!/usr/bin/env bash
# Runs each fuzz target for SECONDS (default 60), or the named ones: fuzz/run.sh SECONDS [TARGET…]. Stops at a finding.
# Works on a stable toolchain: -s none leaves out the sanitizer, whose finds `unsafe_code = "forbid"` rules out.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-60}
shift || true
targets=${*:-$(cargo fuzz list)}
cargo fuzz build -s none
for target in $targets; do
    mkdir -p "fuzz/corpus/$target"
    printf '\n== %s for %s s\n' "$target" "$seconds" >&2
    limit=8192
    [ "$target" = configuration ] && limit=4096
    # --quiet progress: only what was found
    cargo fuzz run -s none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len="$limit" -timeout=20 -rss_limit_mb=4096 -print_final_stats=0 -verbosity=0
done
