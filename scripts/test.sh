#!/usr/bin/env bash
# Everything that must hold: format, lints, documentation, tests. Runs all of it, then says what failed.
# CI=true makes tests that would skip for want of a kernel feature fail instead.
set -uo pipefail
cd "$(dirname "$0")/.."

scripts/packages.sh cc:gcc /usr/include/stdlib.h:libc6-dev ip:iproute2 \
    ping:iputils-ping nginx:nginx-light keepalived:keepalived vtysh:frr tshark:tshark \
    curl:curl nft:nftables || exit 1
PATH="$PATH:/usr/sbin:/sbin"

for component in fmt:rustfmt clippy:clippy; do
    cargo "${component%%:*}" --version >/dev/null 2>&1 && continue
    command -v rustup >/dev/null && rustup component add "${component##*:}" && continue
    echo "cargo ${component%%:*} is missing; install the component ${component##*:} of your Rust toolchain" >&2
    exit 1
done

logs=${CARGO_TARGET_DIR:-target}/test-logs
mkdir -p "$logs"
rm -f "$logs"/*.log # a step that is not run must not be judged by an earlier one
# For all steps together, seconds: a test that hangs must not hang everything, and the whole takes less than
# 40 minutes. Each step gets what the ones before it have left.
limit=${BUOY_TEST_LIMIT:-2340}
failed=()
summary=()

# step NAME FILTER COMMAND...: runs it, shows the lines of its output that FILTER picks, keeps the rest in a log.
step() {
    local name=$1 filter=$2 log=$logs/$1.log began=$SECONDS left=$((limit - SECONDS)) code why=
    shift 2
    if [ "$left" -le 0 ]; then
        summary+=("FAILED  $name (not run: the $limit s for all steps were over)")
        failed+=("$name")
        return
    fi
    echo "==> $name: $*"
    timeout --kill-after=30s "$left" "$@" 2>&1 | tee "$log" | grep --line-buffered -E "$filter"
    code=${PIPESTATUS[0]}
    if [ "$code" -eq 0 ]; then
        summary+=("ok      $name ($((SECONDS - began)) s)")
        return
    fi
    # What timeout ends with when the time was over, and when it had to use SIGKILL.
    case $code in 124 | 137) why=", cut off: the $limit s for all steps were over" ;; esac
    summary+=("FAILED  $name ($((SECONDS - began)) s, see $log$why)")
    failed+=("$name")
    # The output of failed tests, or, if it is no test, the end.
    awk '/^failures:$/ { on = 1 } on { print; found = 1 } /^test result:/ { on = 0 } END { exit !found }' "$log" ||
        tail -n 60 "$log"
}

step fmt . cargo fmt --all --check
step clippy '^(warning|error)' cargo clippy --workspace --all-targets -- -D warnings
step clippy-fault-points '^(warning|error)' \
    cargo clippy -p buoy-fence -p buoy-server -p buoy --all-targets --features buoy/fault-points -- -D warnings
RUSTDOCFLAGS="-D warnings" step doc '^(warning|error)' cargo doc --workspace --no-deps
# With the fault points, which do nothing until a test says so: one build serves all tests.
step test '^ +Running|^ +Doc-tests|^test result|FAILED|^error|^SKIP' \
    cargo test --workspace --features buoy/fault-points --no-fail-fast -- --show-output

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
