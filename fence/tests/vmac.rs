//! Interfaces with virtual MACs in a real kernel: made, marked, kept, and nothing left of them.

mod common;
#[path = "common/host.rs"]
mod host;

use std::collections::BTreeSet;

use buoy_core::spec::VirtualLink;
use buoy_core::spec::vmac::virtual_link;
use buoy_fence::vmac::{Settled, VirtualLinks};
use common::skip_without_root;
use host::Host;

const CONF: &str = "/proc/sys/net/ipv4/conf";

struct Bench {
    host: Host,
    kernel: VirtualLinks,
    links: BTreeSet<VirtualLink>,
}

impl Bench {
    fn new(name: &str) -> Bench {
        let host = Host::new(name);
        let kernel = host.ns.run(|| VirtualLinks::open().expect("a socket"));
        let links = [51, 52].map(|vrid| virtual_link("eth0", vrid, true));
        Bench {
            host,
            kernel,
            links: links.into(),
        }
    }

    fn settle(&mut self, carries: bool) -> Settled {
        let (kernel, links) = (&mut self.kernel, &self.links);
        let settled = self.host.ns.run(|| kernel.settle(links, |_| carries));
        settled.expect("interfaces")
    }

    fn setting(&self, interface: &str, key: &str) -> String {
        let path = format!("{CONF}/{interface}/{key}");
        let text = self.host.ns.run(|| std::fs::read_to_string(path));
        text.expect("a setting").trim().to_owned()
    }

    fn set(&self, interface: &str, key: &str, value: &str) {
        let path = format!("{CONF}/{interface}/{key}");
        self.host
            .ns
            .run(|| std::fs::write(path, value))
            .expect("written");
    }

    fn below(&self) -> (String, String) {
        let of = |key| self.setting("eth0", key);
        (of("arp_ignore"), of("arp_announce"))
    }
}

#[test]
fn they_are_made_once_and_leave_the_interface_below_as_it_was() {
    if skip_without_root() {
        return;
    }
    let mut bench = Bench::new("vmac");
    bench.set("eth0", "arp_announce", "1");
    let before = bench.below();
    let first = bench.settle(false);
    assert_eq!(first.faults, Default::default());
    assert_eq!((first.made.len(), first.pairs.len()), (2, 2));
    assert!(first.changed && first.remade.is_empty());
    let shown = bench.host.ns.ip("-d link show vrrp.51.eth0");
    for word in ["00:00:5e:00:01:33", "macvlan mode bridge", "UP", "alias"] {
        assert!(shown.contains(word), "{shown}");
    }
    assert_eq!(bench.setting("vrrp.51.eth0", "arp_ignore"), "1");
    assert_eq!(bench.setting("vrrp.51.eth0", "rp_filter"), "2");
    assert_eq!(bench.below(), ("1".to_owned(), "2".to_owned()));
    let six = bench.host.ns.ip("-6 addr show dev vrrp.51.eth0");
    assert_eq!(six.trim(), "", "no IPv6");

    let again = bench.settle(false);
    assert!(!again.changed, "{again:?}");
    assert_eq!(again.pairs, first.pairs);

    // Somebody sets one down, and lets the interface below answer for everything.
    bench.host.ns.ip("link set vrrp.51.eth0 down");
    bench.set("eth0", "arp_ignore", "0");
    assert!(bench.settle(true).changed);
    assert!(bench.host.ns.ip("link show vrrp.51.eth0").contains(",UP"));
    assert_eq!(bench.setting("eth0", "arp_ignore"), "1");

    bench.host.ns.ip("link del vrrp.51.eth0");
    let remade = bench.settle(true);
    assert_eq!(remade.remade, BTreeSet::from(["vrrp.51.eth0".to_owned()]));

    // A successor knows by the alias what was there before; what carries an address stays.
    bench.kernel = bench
        .host
        .ns
        .run(|| VirtualLinks::open().expect("a socket"));
    bench.links.clear();
    let kept = bench.settle(true);
    assert_eq!((kept.removed.len(), kept.pairs.len()), (0, 2));
    let gone = bench.settle(false);
    assert_eq!((gone.removed.len(), gone.pairs.len()), (2, 0));
    assert_eq!(bench.below(), before);
}

#[test]
fn what_is_not_ours_is_not_touched_and_what_is_ours_and_wrong_is_made_anew() {
    if skip_without_root() {
        return;
    }
    let mut bench = Bench::new("vmac-other");
    let ns = |bench: &Bench, line: &str| bench.host.ns.ip(line);
    ns(
        &bench,
        "link add link eth0 vrrp.51.eth0 type macvlan mode private",
    );
    ns(&bench, "link add vrrp.52.eth0 type veth peer name stray52");
    let shown = ns(&bench, "-d link show");
    let settled = bench.settle(false);
    assert_eq!(settled.faults.len(), 2, "{settled:?}");
    assert!(settled.faults["vrrp.52.eth0"].contains("00:00:5e:00:01:34"));
    assert_eq!(ns(&bench, "-d link show"), shown);
    ns(&bench, "link del vrrp.51.eth0");
    ns(&bench, "link del vrrp.52.eth0");
    assert!(bench.settle(false).faults.is_empty());

    // Its MAC is changed, or the interface below becomes another one.
    ns(&bench, "link set vrrp.51.eth0 address 02:00:00:00:00:09");
    let busy = bench.settle(true);
    assert!(
        busy.faults["vrrp.51.eth0"].contains("made anew"),
        "{busy:?}"
    );
    assert!(bench.settle(false).made.contains("vrrp.51.eth0"));
    ns(&bench, "link set eth0 down");
    ns(&bench, "link set eth0 name old0");
    assert!(bench.settle(false).faults.is_empty(), "told of eth0 itself");
    ns(&bench, "link add eth0 type veth peer name eth0-peer");
    let moved = bench.settle(false);
    assert_eq!(moved.made.len(), 2, "{moved:?}");

    // One that stands on a macvlan would stand on what is below that.
    ns(&bench, "link add link eth0 mv0 type macvlan mode bridge");
    bench.links = [virtual_link("mv0", 7, true)].into();
    let refused = bench.settle(false);
    assert!(
        refused.faults["vrrp.7.mv0"].contains("macvlan itself"),
        "{refused:?}"
    );
}
