#!/usr/bin/env bash
# Everything that must hold: format, lints, documentation, tests. Runs all of it, then says what failed.
# CI=true makes tests that would skip for want of a kernel feature fail instead.
set -uo pipefail
cd "$(dirname "$0")/.."

"scripts/packages.sh" cc:gcc ip:iproute2 ping:iputils-ping nginx:nginx-light keepalived:keepalived curl:curl || exit 1
PATH="$PATH:/usr/sbin:/sbin"

for component in fmt:rustfmt clippy:clippy; do
    if ! cargo "${component%%:*}" --version >/dev/null 2>&1; then
        echo "cargo ${component%%:*} is missing: rustup component add ${component##*:}" >&2
        exit 1
    fi
done

logs=${CARGO_TARGET_DIR:-target}/test-logs
mkdir -p "$logs"
# Longest time for one step; a test that hangs must not hang everything.
limit=${BUOY_TEST_LIMIT:-35m}
failed=()
summary=()

# step NAME FILTER COMMAND...: runs it, shows the lines of its output that FILTER picks, keeps the rest in a log.
step() {
    local name=$1 filter=$2 log=$logs/$1.log began=$SECONDS
    shift 2
    echo "==> $name: $*"
    timeout --kill-after=30s "$limit" "$@" 2>&1 | tee "$log" | grep --line-buffered -E "$filter"
    if [ "${PIPESTATUS[0]}" -eq 0 ]; then
        summary+=("ok      $name ($((SECONDS - began)) s)")
        return
    fi
    summary+=("FAILED  $name ($((SECONDS - began)) s, see $log)")
    failed+=("$name")
    # The output of failed tests, or, if it is no test, the end.
    awk '/^failures:$/ { on = 1 } on { print; found = 1 } /^test result:/ { on = 0 } END { exit !found }' "$log" ||
        tail -n 60 "$log"
}

step fmt . cargo fmt --all --check
step clippy '^(warning|error)' cargo clippy --workspace --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" step doc '^(warning|error)' cargo doc --workspace --no-deps
step test '^ +Running|^ +Doc-tests|^test result|FAILED|^error|^SKIP' \
    cargo test --workspace --no-fail-fast -- --show-output

echo
if [ -f "$logs/test.log" ]; then
    awk '/^test result:/ { for (i = 2; i <= NF; i++) if ($i ~ /^passed/) n += $(i - 1) }
         END { print "tests passed: " n + 0 }' "$logs/test.log"
    skips=$(grep -E '^SKIP' "$logs/test.log" | sort | uniq -c)
    [ -n "$skips" ] && printf 'skipped:\n%s\n' "$skips"
fi
printf '%s\n' "${summary[@]}"
if [ ${#failed[@]} -gt 0 ]; then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
echo "everything holds"
