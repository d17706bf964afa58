#!/usr/bin/env bash
# The tests of the kernel fence on older kernels: Debian's cloud kernels, each on an emulated machine (qemu without KVM).
# test-kernels.sh [KERNEL...], where KERNEL is 5.10, 6.1 or 6.12; without one, all of them, and docs/verification.md is
# written anew from what came out. BUOY_KERNEL_TESTS="conformance gate_kill" runs some of the test programs only.
#
# Everything lies in target/kernels: the kernels (kept between runs; remove the directory to get newer ones), and
# for each of them results.log (what the tests said) and console.log (what the kernel said).
set -euo pipefail
cd "$(dirname "$0")/.."

all=(5.10 6.1 6.12)
kernels=("${@:-${all[@]}}")
work=$(realpath -m "${CARGO_TARGET_DIR:-target}/kernels")
# Seconds: for one test program, and for one machine. A test that hangs must not hang everything.
limit_program=${BUOY_KERNEL_PROGRAM_LIMIT:-1200}
limit_machine=${BUOY_KERNEL_LIMIT:-3600}

[ "$(uname -m)" = x86_64 ] || {
    echo "test-kernels: the test programs of this machine ($(uname -m)) do not run on an emulated x86_64 one" >&2
    exit 1
}
scripts/packages.sh cc:gcc /usr/include/stdlib.h:libc6-dev strip:binutils ip:iproute2 tc:iproute2 ping:iputils-ping nft:nftables \
    qemu-system-x86_64:qemu-system-x86 busybox:busybox-static cpio:cpio depmod:kmod xz:xz-utils \
    /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
PATH="$PATH:/usr/sbin:/sbin"
mkdir -p "$work"

# What the tests use, whole directories of modules among it. The kernel asks modprobe for each when it needs it.
modules=(
    net/netfilter net/ipv4/netfilter net/ipv6/netfilter net/bridge/netfilter net/sched net/packet net/8021q net/802
    drivers/net/veth.ko drivers/net/tun.ko drivers/net/dummy.ko drivers/net/macvlan.ko
)

# apt with a configuration and lists of its own: the machine's sources and packages are left alone.
private_apt() {
    APT_CONFIG=$work/apt/apt.conf "$@"
}

# Where the machine gets its own Debian packages from, if it does.
repository() { # LABEL DEFAULT
    local uri
    uri=$(apt-get indextargets --format '$(REPO_URI)' "Origin: Debian" "Label: $1" 2>/dev/null | sort -u | head -n 1)
    echo "${uri:-$2}"
}

fetch_lists() {
    local apt=$work/apt debian security suite proxy keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$apt/fetched" ] && return
    mkdir -p "$apt"/{parts,state/lists/partial,cache/archives/partial}
    : >"$apt/status"
    debian=$(repository Debian http://deb.debian.org/debian)
    security=$(repository Debian-Security http://deb.debian.org/debian-security)
    for suite in bullseye bookworm bookworm-backports trixie; do
        echo "deb [arch=amd64 signed-by=$keyring] $debian $suite main"
    done >"$apt/sources.list"
    for suite in bullseye bookworm trixie; do
        echo "deb [arch=amd64 signed-by=$keyring] $security $suite-security main"
    done >>"$apt/sources.list"
    proxy=$(apt-config shell proxy Acquire::http::Proxy)
    eval "$proxy"
    cat >"$apt/apt.conf" <<EOF
Dir::Etc::main "/dev/null";
Dir::Etc::parts "$apt/parts";
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "$apt/parts";
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::GzipIndexes "true";
Acquire::http::Proxy "${proxy:-}";
EOF
    echo "fetching Debian's package lists" >&2
    # A suite that this mirror does not have is no failure as long as some other has the kernel.
    private_apt apt-get update -qq >&2 || true
    touch "$apt/fetched"
}

# Unpacks the newest cloud kernel of a series: vmlinuz, version, and its modules as a part of an initramfs.
fetch_kernel() { # SERIES
    local series=$1 to=$work/$1 version package release files path
    [ -e "$to/modules.cpio" ] && return
    fetch_lists
    version=$(private_apt apt-cache madison linux-image-cloud-amd64 | awk '{ print $3 }' |
        grep -E "^${series//./\\.}\.[0-9]" | sort -Vr | head -n 1) || {
        echo "test-kernels: no Debian suite of this mirror has a cloud kernel $series (see $work/apt/sources.list)" >&2
        exit 1
    }
    package=$(private_apt apt-cache show "linux-image-cloud-amd64=$version" |
        sed -n 's/^Depends: \([^ ,]*\).*/\1/p' | head -n 1)
    echo "fetching $package $version" >&2
    rm -rf "$to"
    mkdir -p "$to/unpacked" "$to/root"
    (cd "$to" && private_apt apt-get download -qq "$package=$version")
    dpkg-deb --fsys-tarfile "$to"/*.deb | tar -x -C "$to/unpacked"
    rm "$to"/*.deb
    release=$(basename "$to"/unpacked/boot/vmlinuz-*)
    release=${release#vmlinuz-}
    mv "$to/unpacked/boot/vmlinuz-$release" "$to/vmlinuz"
    [ -d "$to/unpacked/lib" ] || mv "$to/unpacked/usr/lib" "$to/unpacked/lib"
    find "$to/unpacked/lib/modules" -name '*.ko.xz' -exec xz --decompress {} +
    # Those that are used and, whole, what they need.
    depmod --basedir "$to/unpacked" "$release"
    files=$(cd "$to/unpacked/lib/modules/$release" && awk -v wanted="${modules[*]}" '
        BEGIN { n = split(wanted, prefix, " ") }
        { sub(":", "", $1); for (i = 1; i <= n; i++) if (index($1, "kernel/" prefix[i]) == 1) { print; next } }
        ' modules.dep | tr ' ' '\n' | sort -u)
    for path in $files modules.builtin modules.order; do
        install -D -m 644 "$to/unpacked/lib/modules/$release/$path" "$to/root/lib/modules/$release/$path"
    done
    # Fields of the module format that a builtin module has too, for depmod.
    cp "$to/unpacked/lib/modules/$release/modules.builtin.modinfo" "$to/root/lib/modules/$release/" 2>/dev/null || true
    depmod --basedir "$to/root" "$release"
    echo "$version" >"$to/version"
    archive "$to/root" >"$to/modules.cpio.new"
    rm -rf "$to/unpacked" "$to/root"
    mv "$to/modules.cpio.new" "$to/modules.cpio"
}

# An initramfs of a directory. Several may follow each other in one file.
archive() { # DIRECTORY
    (cd "$1" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet)
}

# A program with the libraries that it is linked with, which keep their places.
put() { # PROGRAM PLACE
    local library
    install -D -m 755 "$1" "$work/root$2"
    # Says nothing of one that is linked with none.
    { ldd "$1" 2>/dev/null || true; } | { grep -oE '/[^ ]+' || true; } | while read -r library; do
        [ -e "$work/root$library" ] || install -D -m 755 "$(realpath "$library")" "$work/root$library"
    done
}

# The part of the initramfs that all kernels share: the tests, and the programs that they call.
build_tests() {
    local json=$work/build.json program name tool commit
    echo "building the tests of buoy-fence" >&2
    cargo test -p buoy-fence --no-run --message-format=json-render-diagnostics >"$json"
    # What was built, for the report: the work tree may have moved on by then.
    commit=$(git rev-parse --short=12 HEAD)
    git diff --quiet HEAD -- . ':!docs' || commit="$commit with uncommitted changes"
    echo "$commit" >"$work/commit"
    rm -rf "$work/root"
    mkdir -p "$work/root"/{bin,sbin,proc,sys,dev,tmp,tests}
    sed -n 's/.*"test":true.*"executable":"\([^"]*\)".*/\1/p' "$json" | sort | while read -r program; do
        name=$(basename "$program")
        name=${name%-*}
        [ -z "${BUOY_KERNEL_TESTS:-}" ] || [[ " $BUOY_KERNEL_TESTS " == *" $name "* ]] || continue
        put "$program" "/tests/$name"
        strip --strip-debug "$work/root/tests/$name"
    done
    [ -n "$(ls "$work/root/tests")" ] || {
        echo "test-kernels: buoy-fence has no test program of the names \"${BUOY_KERNEL_TESTS:-}\"" >&2
        exit 1
    }
    put "$(command -v busybox)" /bin/busybox
    ln -s ../bin/busybox "$work/root/sbin/modprobe"
    for tool in ip tc ping nft; do
        put "$(command -v "$tool")" "/tools/$tool"
    done
    install -m 755 scripts/kernels/init "$work/root/init"
    echo "$limit_program" >"$work/root/limit"
    archive "$work/root" >"$work/tests.cpio"
    rm -rf "$work/root"
}

# Runs one kernel to its end; results.log says how it went.
run() { # SERIES
    local to=$work/$1 began=$SECONDS machine code=0
    rm -f "$to/console.log" "$to/seconds"
    : >"$to/results.log"
    cat "$to/modules.cpio" "$work/tests.cpio" >"$to/initrd"
    echo "==> Linux $1, Debian's package $(<"$to/version")"
    timeout --kill-after=10 "$limit_machine" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 1536 \
        -nodefaults -no-reboot -display none -kernel "$to/vmlinuz" -initrd "$to/initrd" \
        -append "console=ttyS0 panic=-1 mitigations=off" -serial "file:$to/console.log" -serial "file:$to/results.log" &
    machine=$!
    # shellcheck disable=SC2064 # the process of now
    trap "kill $machine 2>/dev/null" EXIT
    tail --pid="$machine" --follow --lines=+1 --sleep-interval=0.5 "$to/results.log" |
        grep --line-buffered -E '^kernel |^==> |^<== .* [1-9]|^test result|\.\.\. FAILED|^SKIP|minus deadline' || true
    wait "$machine" || code=$?
    trap - EXIT
    rm -f "$to/initrd"
    echo $((SECONDS - began)) >"$to/seconds"
    [ "$code" -eq 0 ] || echo "qemu ended with code $code (124: after the limit of $limit_machine s)"
}

# What a results.log adds up to: "complete passed failed".
judge() { # SERIES
    awk '
        /^test .* \.\.\. ok$/ { passed++ }
        /^test .* \.\.\. FAILED$/ { failed++; inside++ }
        /^==> / { inside = 0 }
        # A program that fails without a test that does: killed, or a harness of its own.
        /^<== / && $3 != 0 && !inside { failed++ }
        /^end$/ { complete = 1 }
        END { print complete + 0, passed + 0, failed + 0 }' "$work/$1/results.log"
}

# What tests left out, each reason once, with how often.
skips() { # SERIES
    sed -n 's/^SKIP: //p' "$work/$1/results.log" | sort | uniq -c | sed -E 's/^ *([0-9]+) (.*)/\2 (\1x)/'
}

# The figures of a kind of gate: "first / median / last", or the latest of the single ones.
lateness() { # SERIES GATE
    sed -nE "s|^$2: last answered question minus deadline, n = [0-9]+: (.*) ms\$|\1|p" "$work/$1/results.log"
}
lateness_of_stopped() { # SERIES GATE
    sed -nE "s|^$2: last answered question minus deadline, after (SIG[A-Z]+): (.*) ms\$|\2|p" "$work/$1/results.log" |
        paste -sd '/' | sed 's|/| / |'
}

report() {
    local series complete passed failed
    echo "Last run: $(date -u +%Y-%m-%d), commit $(<"$work/commit"), $(qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([^ ]*\).*/qemu \1/p')."
    echo
    echo '| Linux | Debian package | passed | failed | eBPF, lease ends | eBPF, killed / stopped | nftables, lease ends | nftables, killed / stopped | time |'
    echo '| --- | --- | --- | --- | --- | --- | --- | --- | --- |'
    for series in "${all[@]}"; do
        read -r complete passed failed < <(judge "$series")
        echo "| $(sed -n 's/^kernel //p' "$work/$series/results.log") | $(<"$work/$series/version") | $passed | $failed" \
            "| $(lateness "$series" Ebpf) | $(lateness_of_stopped "$series" Ebpf)" \
            "| $(lateness "$series" Nft) | $(lateness_of_stopped "$series" Nft) | $(<"$work/$series/seconds") s |"
    done
    echo
    echo "Left out, because the kernel does not have it:"
    echo
    for series in "${all[@]}"; do
        skips "$series" | sed "s/^/- $series: /"
    done
}

# Puts the report between its marks.
write_report() {
    local doc=docs/verification.md text
    text=$(report)
    awk -v text="$text" '
        /^<!-- kernels: begin/ { print; print text; inside = 1 }
        /^<!-- kernels: end/ { inside = 0 }
        !inside || /^<!-- kernels: end/ { if (!/^<!-- kernels: begin/) print }' "$doc" >"$work/verification.md"
    cat "$work/verification.md" >"$doc"
    echo "$doc is up to date"
}

for series in "${kernels[@]}"; do
    [[ " ${all[*]} " == *" $series "* ]] || {
        echo "test-kernels: no kernel $series here; there are: ${all[*]}" >&2
        exit 1
    }
    fetch_kernel "$series"
done
build_tests
for series in "${kernels[@]}"; do
    run "$series"
done

echo
bad=0 whole=1
for series in "${kernels[@]}"; do
    read -r complete passed failed < <(judge "$series")
    echo "Linux $series: $passed passed, $failed failed, in $(<"$work/$series/seconds") s"
    skips "$series" | sed 's/^/    left out: /'
    if [ "$complete" -eq 0 ]; then
        echo "    did not come to its end, see $work/$series/results.log and console.log"
        whole=0
    fi
    [ "$complete" -eq 1 ] && [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ] || bad=1
done
[ $# -eq 0 ] && [ -z "${BUOY_KERNEL_TESTS:-}" ] && [ "$whole" -eq 1 ] && write_report
exit "$bad"
