#!/usr/bin/env bash
# Installs what is missing, on Debian. Arguments are COMMAND:PACKAGE, such as `node:nodejs`.
set -euo pipefail
packages=()
for argument in "$@"; do
    command -v "${argument%%:*}" >/dev/null || packages+=("${argument#*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
    echo "installing ${packages[*]}" >&2
    as_root=()
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" libc6-dev
fi
