//! Notices of the kernel that were lost because too many came at once.

mod common;
#[path = "common/host.rs"]
mod host;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use buoy_fence::addr::Addresses;
use buoy_fence::watch::KernelEvent;
use common::{NetNs, skip_without_root};
use host::{Host, PATIENCE, add, event, ip, is_there, manage, until};

/// The comparison that an overrun brings about is over by then, long before the one that comes by itself.
const REPAIR: Duration = Duration::from_secs(1);

#[test]
fn nothing_is_lost_for_good_when_the_kernels_queue_overflows() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("overrun");
    let links = host.links();
    let (frozen, stands_still) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (freeze, stands) = (Arc::clone(&frozen), Arc::clone(&stands_still));
    // A lease check that takes its time stops the keeper.
    let live = Arc::new(move |_| {
        while freeze.load(Ordering::Relaxed) {
            stands.store(true, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    });
    let (addresses, mut events) = host
        .ns
        .run(|| Addresses::start(live, Arc::new(|_| true)))
        .expect("a keeper");
    host.run(|| async {
        add(&addresses, &["10.0.0.50"]).await;
        manage(&addresses, &["10.0.0.51"]);
        frozen.store(true, Ordering::Relaxed);
        until("the keeper stops at its next refresh", PATIENCE, || {
            stands_still.load(Ordering::Relaxed)
        })
        .await;
        let lines = "addr add 10.9.9.9/32 dev eth0\naddr del 10.9.9.9/32 dev eth0\n".repeat(1_000);
        // As many as a slow machine manages: it is memory that fills, not time that passes.
        until("its queue overflows", Duration::from_secs(60), || {
            batch(&host.ns, &lines);
            has_dropped(&host.ns)
        })
        .await;
        // Its lifetime may have ended it meanwhile.
        host.ns.run(|| {
            let deleted = ["addr", "del", "10.0.0.50/32", "dev", "eth0"];
            let ip = Command::new("ip").args(deleted).output();
            ip.expect("ip")
        });
        assert!(!is_there(&links, ip("10.0.0.50")));
        host.ns.ip("addr add 10.0.0.51/32 dev eth0");
        frozen.store(false, Ordering::Relaxed);
        event(&mut events, "an overrun", |e| {
            matches!(e, KernelEvent::Overrun)
        })
        .await;
        until("all is well", REPAIR, || {
            is_there(&links, ip("10.0.0.50")) && !is_there(&links, ip("10.0.0.51"))
        })
        .await;
    });
}

/// Whether the kernel has dropped a message for want of room in a netlink socket of this namespace.
fn has_dropped(ns: &NetNs) -> bool {
    let sockets = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/netlink"));
    let sockets = sockets.expect("the netlink sockets");
    let column = |line: &str, n| line.split_whitespace().nth(n).map(str::to_owned);
    let mut lines = sockets.lines();
    let head = lines.next().expect("a head line");
    let drops = head.split_whitespace().position(|word| word == "Drops");
    let drops = drops.expect("a column of drops");
    lines.any(|line| column(line, drops).expect("a number") != "0")
}

fn batch(ns: &NetNs, lines: &str) {
    ns.run(|| {
        let ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .spawn();
        let mut ip = ip.expect("ip");
        let mut input = ip.stdin.take().expect("its input");
        input.write_all(lines.as_bytes()).expect("ip reads");
        drop(input);
        assert!(ip.wait().expect("ip ends").success());
    });
}
