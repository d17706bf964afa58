//! Addresses of VIPs on a real interface: as asked for, for as long as they are refreshed.

mod common;
#[path = "common/host.rs"]
mod host;

use std::time::{Duration, Instant};

use buoy_core::spec::Scope;
use buoy_fence::addr::{AddressError, AddressSpec, Leftover, VALID_LIFETIME};
use common::{is_emulated, skip_without_root};
use host::{Host, PATIENCE, find, ip, is_there, until, vip};

const IFA_F_NODAD: u32 = 0x02;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

fn fine(results: Vec<Result<(), AddressError>>) {
    for result in results {
        result.expect("it is done");
    }
}

#[test]
fn addresses_are_as_asked_for_and_leave_the_routes_alone() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("asked");
    let links = host.links();
    let (addresses, _events) = host.keeper();
    let routes = || {
        (
            host.ns.ip("route show table main"),
            host.ns.ip("-6 route show table main"),
        )
    };
    let before = routes();
    let labelled = AddressSpec {
        prefix: 25,
        label: Some("eth0:web".to_owned()),
        scope: Scope::Link,
        ..vip("10.0.0.200")
    };
    let wide = AddressSpec {
        prefix: 64,
        ..vip("fd00::201")
    };
    let specs = vec![labelled.clone(), vip("10.0.0.201"), vip("fd00::200"), wide];
    host.run(|| async { fine(addresses.add(specs.clone()).await) });
    assert_eq!(addresses.mine().len(), 4);

    let snapshot = links.snapshot().expect("a snapshot");
    let eth0 = snapshot.link("eth0").expect("eth0").index;
    for spec in &specs {
        let [found] = &find(&snapshot, spec.ip)[..] else {
            panic!("{} is not there once: {:?}", spec.ip, snapshot.addresses);
        };
        assert_eq!((found.ifindex, found.prefix), (eth0, spec.prefix));
        let v4 = spec.ip.is_ipv4();
        let label = spec.label.clone().unwrap_or_else(|| "eth0".to_owned());
        assert_eq!(found.label, v4.then_some(label));
        let scope = if spec.scope == Scope::Link { 253 } else { 0 };
        assert_eq!(found.scope, scope);
        assert!((1..=VALID_LIFETIME).contains(&found.valid), "{found:?}");
        assert_eq!(
            found.flags & (IFA_F_PERMANENT | IFA_F_TENTATIVE),
            0,
            "{found:?}"
        );
        assert_ne!(found.flags & IFA_F_NOPREFIXROUTE, 0, "{found:?}");
        if !v4 {
            assert_ne!(found.flags & IFA_F_NODAD, 0);
            assert_eq!(found.preferred, 0, "it is no source address");
        }
    }
    assert_eq!(routes(), before);
    let way = host.ns.ip("-6 route get fd00::9");
    assert!(way.contains("src fd00::1 "), "{way}");

    // Again, and then in another way: one address each time.
    host.run(|| async { fine(addresses.add(specs.clone()).await) });
    let plain = AddressSpec {
        prefix: 32,
        label: None,
        ..labelled.clone()
    };
    host.run(|| async { fine(addresses.add(vec![plain]).await) });
    let snapshot = links.snapshot().expect("a snapshot");
    let found = find(&snapshot, labelled.ip);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].prefix, found[0].label.as_deref()),
        (32, Some("eth0"))
    );

    let ips: Vec<_> = specs.iter().map(|spec| spec.ip).collect();
    host.run(|| async { fine(addresses.remove(&ips).await) });
    assert!(addresses.mine().is_empty());
    assert!(!ips.iter().any(|ip| is_there(&links, *ip)));
    // Once more is fine.
    host.run(|| async { fine(addresses.remove(&ips).await) });
}

#[test]
fn addresses_of_somebody_else_make_room() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("room");
    host.ns.ip("addr add 10.0.0.50/32 dev eth0 label eth0:old");
    host.ns.ip("addr add fd00::50/64 dev eth0 nodad");
    let (addresses, _events) = host.keeper();
    let specs = vec![vip("10.0.0.50"), vip("10.0.0.51"), vip("fd00::50")];
    host.run(|| async { fine(addresses.add(specs.clone()).await) });
    let snapshot = host.links().snapshot().expect("a snapshot");
    for spec in specs {
        let found = find(&snapshot, spec.ip);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].prefix, spec.prefix);
        assert!(
            found[0].valid <= VALID_LIFETIME,
            "it would outlive us: {:?}",
            found[0]
        );
        assert_ne!(found[0].label.as_deref(), Some("eth0:old"));
    }
}

#[test]
fn addresses_outlive_their_lifetime_only_while_they_are_refreshed() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("lifetime");
    let links = host.links();
    let (addresses, _events) = host.keeper();
    let ips = [ip("10.0.0.60"), ip("fd00::60")];
    let specs = vec![vip("10.0.0.60"), vip("fd00::60")];
    host.run(|| async {
        fine(addresses.add(specs).await);
        // Half as long again as they would live on their own.
        let end = Instant::now() + Duration::from_millis(4_500);
        while Instant::now() < end {
            for ip in ips {
                assert!(is_there(&links, ip), "{ip} went away under the keeper");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    drop(addresses);
    let dropped = Instant::now();
    host.run(|| async {
        for ip in ips {
            until("the kernel takes the address", PATIENCE, || {
                !is_there(&links, ip)
            })
            .await;
            let after = dropped.elapsed();
            println!("{ip} went {after:?} after its keeper");
            // 3 s after the last refresh, and the kernel is up to half a second late.
            assert!(after < Duration::from_millis(3_600), "{ip}: {after:?}");
        }
    });
}

#[test]
fn a_thousand_addresses_are_added_kept_and_removed_quickly() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("thousand");
    let links = host.links();
    let (addresses, _events) = host.keeper();
    let specs: Vec<_> = (0..1000)
        .map(|n| match n % 2 {
            0 => vip(&format!("10.0.{}.{}", 1 + n / 250, n % 250)),
            _ => vip(&format!("fd00::1:{n:x}")),
        })
        .collect();
    let ips: Vec<_> = specs.iter().map(|spec| spec.ip).collect();
    let held = || {
        let snapshot = links.snapshot().expect("a snapshot");
        snapshot
            .addresses
            .iter()
            .filter(|a| ips.contains(&a.ip))
            .count()
    };
    host.run(|| async {
        let start = Instant::now();
        fine(addresses.add(specs).await);
        let added = start.elapsed();
        assert_eq!(held(), 1000);
        let start = Instant::now();
        addresses.refresh_all().await.expect("all are refreshed");
        let refreshed = start.elapsed();
        let start = Instant::now();
        fine(addresses.remove(&ips).await);
        let removed = start.elapsed();
        assert_eq!(held(), 0);
        println!("1,000 addresses: added in {added:?}, refreshed in {refreshed:?}, removed in {removed:?}");
        let quickly = Duration::from_secs(if is_emulated() { 30 } else { 1 });
        assert!(added < quickly, "{added:?}");
        assert!(removed < quickly, "{removed:?}");
    });
}

#[test]
fn what_cannot_be_added_is_said_per_address() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("errors");
    let links = host.links();
    host.ns.ip("link add idle type bridge");
    host.ns.ip("link add no6 type bridge");
    host.ns.ip("link set no6 up");
    host.ns
        .run(|| std::fs::write("/proc/sys/net/ipv6/conf/no6/disable_ipv6", "1"))
        .expect("the sysctl");
    let (addresses, _events) = host.keeper();
    let on = |interface: &str, text: &str| AddressSpec {
        interface: interface.to_owned(),
        ..vip(text)
    };
    let specs = vec![
        on("eth7", "10.0.0.70"),
        on("idle", "10.0.0.71"),
        on("no6", "fd00::72"),
        AddressSpec {
            prefix: 33,
            ..vip("10.0.0.73")
        },
        AddressSpec {
            label: Some("eth0:far-too-long".to_owned()),
            ..vip("10.0.0.74")
        },
        vip("10.0.0.75"),
    ];
    let results = host.run(|| async { addresses.add(specs).await });
    let said: Vec<_> = results
        .iter()
        .map(|r| {
            r.as_ref()
                .map_or_else(ToString::to_string, |()| "fine".to_owned())
        })
        .collect();
    for (said, words) in said.iter().zip([
        "this host has no interface eth7",
        "interface idle is down (`ip link set idle up`",
        "cannot add fd00::72/128 on no6: the kernel says: ",
        "its prefix length is 33, expected 1 to 32",
        "has not 1 to 15 bytes",
        "fine",
    ]) {
        assert!(said.contains(words), "expected {words:?}: {said}");
    }
    assert!(said[2].contains("disable_ipv6=0"), "{}", said[2]);
    assert_eq!(
        addresses.mine().into_iter().collect::<Vec<_>>(),
        [ip("10.0.0.75")],
        "what failed is not held"
    );

    // An interface that was just made is found.
    host.ns.ip("link add eth7 type bridge");
    host.ns.ip("link set eth7 up");
    host.run(|| async { fine(addresses.add(vec![on("eth7", "10.0.0.70")]).await) });
    assert!(is_there(&links, ip("10.0.0.70")));
}

#[test]
fn going_down_overtakes_going_up() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("overtake");
    let (addresses, _events) = host.keeper();
    host.run(|| async {
        let adding = addresses.add(vec![vip("10.0.0.80")]);
        addresses.release(&[ip("10.0.0.80")]);
        let results = adding.await;
        assert!(
            matches!(results[..], [Err(AddressError::Withdrawn { .. })]),
            "{results:?}"
        );
    });
    assert!(!is_there(&host.links(), ip("10.0.0.80")));
}

#[test]
fn leftovers_go_from_every_interface_and_nothing_else_does() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("leftovers");
    let links = host.links();
    host.ns.ip("link add other type bridge");
    host.ns.ip("link set other up");
    host.ns.ip("addr add 10.0.0.90/24 dev eth0");
    host.ns.ip("addr add 10.0.0.90/32 dev other");
    host.ns.ip("addr add fd00::90/64 dev other nodad");
    host.ns.ip("addr add 10.0.0.99/24 dev eth0");
    let (addresses, _events) = host.keeper();
    let managed = [
        ip("10.0.0.90"),
        ip("fd00::90"),
        ip("10.0.0.91"),
        ip("10.0.0.92"),
    ];
    let cleanup = host.run(|| async {
        fine(addresses.add(vec![vip("10.0.0.92")]).await);
        addresses.remove_leftovers(&managed).await
    });
    assert!(cleanup.failed.is_empty(), "{:?}", cleanup.failed);
    let mut removed = cleanup.removed;
    removed.sort_by(|a, b| (a.ip, &a.interface).cmp(&(b.ip, &b.interface)));
    let left = |text: &str, prefix, interface: &str| Leftover {
        ip: ip(text),
        prefix,
        interface: interface.to_owned(),
    };
    assert_eq!(
        removed,
        [
            left("10.0.0.90", 24, "eth0"),
            left("10.0.0.90", 32, "other"),
            left("fd00::90", 64, "other")
        ]
    );
    for (text, expected) in [
        ("10.0.0.90", false),
        ("fd00::90", false),
        ("10.0.0.92", true),
        ("10.0.0.99", true),
        ("10.0.0.1", true),
    ] {
        assert_eq!(is_there(&links, ip(text)), expected, "{text}");
    }
}

#[test]
fn the_others_of_a_network_stay_when_its_primary_address_goes() {
    if skip_without_root() {
        return;
    }
    let host = Host::new("secondary");
    let links = host.links();
    let (addresses, _events) = host.keeper();
    let wide = |text| AddressSpec {
        prefix: 28,
        ..vip(text)
    };
    let specs = vec![
        wide("192.168.192.20"),
        wide("192.168.192.21"),
        wide("192.168.192.22"),
    ];
    host.run(|| async { fine(addresses.add(specs.clone()).await) });
    // The kernel takes the secondaries along, and tells only the socket that asked.
    let promotes = host.ns.run(|| {
        ["all", "eth0"].iter().any(|name| {
            let setting = format!("/proc/sys/net/ipv4/conf/{name}/promote_secondaries");
            std::fs::read_to_string(setting).expect("the sysctl").trim() != "0"
        })
    });
    assert!(!promotes, "this namespace keeps secondaries by itself");
    host.run(|| async { fine(addresses.remove(&[specs[0].ip]).await) });
    assert!(!is_there(&links, specs[0].ip));
    for spec in &specs[1..] {
        assert!(is_there(&links, spec.ip), "{} went along", spec.ip);
    }
    // Taken in another way, the next one is removed as well before it is added.
    let narrow = AddressSpec {
        prefix: 32,
        ..specs[1].clone()
    };
    host.run(|| async { fine(addresses.add(vec![narrow]).await) });
    assert!(is_there(&links, specs[2].ip), "{} went along", specs[2].ip);
}
