//! Network settings of the kernel that come between a VIP and those who use it.

use std::net::IpAddr;

use buoy_fence::link::Snapshot;

use super::{Files, Finding};
use crate::config::Config;

/// An interface that carries VIPs.
pub(super) fn interface(
    files: &Files,
    snapshot: &Snapshot,
    config: Option<&Config>,
    name: &str,
) -> Vec<Finding> {
    let about = format!("interface {name}");
    let link = match snapshot.check_link(name) {
        Ok(link) => link,
        Err(fault) => return vec![Finding::problem(&about, fault.to_string(), "")],
    };
    let settings = ["arp_ignore", "arp_announce", "rp_filter"].map(|setting| {
        let value = ipv4_setting(files, name, setting);
        format!(
            "{setting} {}",
            value.map_or("?".to_owned(), |v| v.to_string())
        )
    });
    let well = format!("is up, and can carry a VIP ({})", settings.join(", "));
    let mut found = vec![Finding::fine(&about, well)];
    if link.xdp {
        found.push(Finding::warning(
            &about,
            "runs an XDP program, which sees packets before the packet gate: what it answers or sends on by itself (XDP_TX, XDP_REDIRECT) is not fenced",
            "make sure that it only passes or drops packets of the VIPs",
        ));
    }
    let vips: Vec<(IpAddr, u8)> = config
        .into_iter()
        .flat_map(|c| &c.vips)
        .filter(|v| v.interface == name)
        .flat_map(|v| v.addresses.iter().map(|a| (a.ip, a.prefix)))
        .collect();
    found.extend(arp_ignore(files, &about, name, &vips));
    found.extend(reverse_path(files, &about, name, snapshot));
    found
}

/// The kernel takes the larger of the values for all interfaces and for one (ip-sysctl.rst).
fn ipv4_setting(files: &Files, interface: &str, name: &str) -> Option<i64> {
    let of = |whose: &str| files.number(&format!("proc/sys/net/ipv4/conf/{whose}/{name}"));
    Some(of("all")?.max(of(interface)?))
}

fn arp_ignore(
    files: &Files,
    about: &str,
    interface: &str,
    vips: &[(IpAddr, u8)],
) -> Option<Finding> {
    let value = ipv4_setting(files, interface, "arp_ignore")?;
    let advice =
        format!("sysctl -w net.ipv4.conf.{interface}.arp_ignore=1 (and not more for `all`)");
    let host_address = vips
        .iter()
        .find(|(ip, prefix)| ip.is_ipv4() && *prefix == 32);
    match value {
        0 | 1 => None,
        2 => host_address.map(|(ip, _)| {
            Finding::problem(
                about,
                format!("arp_ignore is 2, so the kernel answers ARP only within an address's own subnet, which {ip}/32 does not have: nobody can reach it"),
                format!("give the VIP the prefix length of its network, or {advice}"),
            )
        }),
        8.. => Some(Finding::problem(
            about,
            format!("arp_ignore is {value}, so the kernel answers no ARP at all: nobody can reach an IPv4 VIP"),
            advice,
        )),
        _ => Some(Finding::warning(
            about,
            format!("arp_ignore is {value}, so that addresses of some scopes are not answered for"),
            advice,
        )),
    }
}

/// Strict reverse path filtering drops what comes in by another interface than answers would leave by.
fn reverse_path(
    files: &Files,
    about: &str,
    interface: &str,
    snapshot: &Snapshot,
) -> Option<Finding> {
    if ipv4_setting(files, interface, "rp_filter")? != 1 {
        return None;
    }
    let index = snapshot.link(interface)?.index;
    let other = snapshot.addresses.iter().find(|a| {
        let there = |b: &&buoy_fence::link::FoundAddress| b.ifindex == index && b.ip.is_ipv4();
        a.ifindex != index
            && snapshot
                .addresses
                .iter()
                .filter(there)
                .any(|b| a.covers(b.ip))
    })?;
    let other = snapshot.name(other.ifindex);
    Some(Finding::warning(
        about,
        format!(
            "rp_filter is 1 (strict), and {other} is in the same subnet: packets to a VIP are dropped where their answers would leave by {other}"
        ),
        format!(
            "sysctl -w net.ipv4.conf.{interface}.rp_filter=2, or put {other} into another subnet"
        ),
    ))
}

/// Settings of the whole host.
pub(super) fn host(files: &Files) -> Option<Finding> {
    let keys = ["ipv4", "ipv6"].map(|family| format!("net/{family}/ip_nonlocal_bind"));
    let off = |key: &&String| files.number(&format!("proc/sys/{key}")) == Some(0);
    let off: Vec<String> = keys
        .iter()
        .filter(off)
        .map(|k| k.replace('/', "."))
        .collect();
    if off.is_empty() {
        return None;
    }
    Some(Finding::warning(
        "binding",
        format!(
            "{} = 0: a service that listens on a VIP itself does not start while another node holds it",
            off.join(", ")
        ),
        format!(
            "let it listen on all addresses, or sysctl -w {}=1",
            off.join("=1 ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn files(settings: &[(&str, &str)]) -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in settings {
            let path = dir.path().join("proc/sys/net").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        let files = Files {
            root: dir.path().into(),
        };
        (dir, files)
    }

    #[test]
    fn arp_that_is_never_answered_is_a_problem() {
        let vip = |prefix| [("192.0.2.10".parse().unwrap(), prefix)];
        for (all, own, prefix, level) in [
            ("0", "0", 32, None),
            ("0", "1", 32, None),
            ("0", "2", 24, None),
            ("2", "0", 32, Some(Level::Problem)),
            ("3", "0", 24, Some(Level::Warning)),
            ("0", "8", 24, Some(Level::Problem)),
        ] {
            let (_dir, files) = files(&[
                ("ipv4/conf/all/arp_ignore", all),
                ("ipv4/conf/eth0/arp_ignore", own),
            ]);
            let found = arp_ignore(&files, "interface eth0", "eth0", &vip(prefix));
            assert_eq!(
                found.as_ref().map(|f| f.level),
                level,
                "{all} {own} {found:?}"
            );
        }
    }

    #[test]
    fn what_the_kernel_does_not_have_is_no_finding() {
        let (_dir, files) = files(&[]);
        assert_eq!(host(&files), None);
        assert_eq!(arp_ignore(&files, "interface eth0", "eth0", &[]), None);
    }

    #[test]
    fn services_on_a_vip_are_thought_of() {
        let (_dir, files) = files(&[
            ("ipv4/ip_nonlocal_bind", "0"),
            ("ipv6/ip_nonlocal_bind", "1"),
        ]);
        let advice = host(&files).unwrap().advice;
        assert!(
            advice.ends_with("sysctl -w net.ipv4.ip_nonlocal_bind=1"),
            "{advice}"
        );
    }
}
