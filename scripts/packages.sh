#!/usr/bin/env bash
# Installs Debian packages of which something is missing: packages.sh PROGRAM:PACKAGE... /FILE:PACKAGE...
set -euo pipefail

missing=()
for pair in "$@"; do
    wanted=${pair%%:*}
    case $wanted in
    /*) [ -e "$wanted" ] ;;
    *) PATH="$PATH:/usr/sbin:/sbin" command -v "$wanted" >/dev/null ;;
    esac || missing+=("${pair##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if [ "$(id -u)" -ne 0 ]; then
    echo "missing: ${missing[*]}; run as root, or: apt-get install ${missing[*]}" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; this is no Debian, install them by hand" >&2
    exit 1
fi
# Standard output belongs to what the caller runs next.
echo "installing: ${missing[*]}" >&2

# Services that come with a package are neither started now nor at the next boot.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
rm -f "$log"
if [ -d /run/systemd/system ]; then
    for package in "${missing[@]}"; do
        case $package in
        nginx-light) systemctl disable --quiet nginx ;;
        keepalived | frr) systemctl disable --quiet "$package" ;;
        esac
    done
fi
