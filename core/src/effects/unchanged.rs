//! Which addresses an edit leaves as they are.

use std::net::IpAddr;

use crate::spec::VipSpec;

/// The addresses that are on the interface under one declaration of a VIP exactly as they shall be under another:
/// same prefix length, interface that carries it, label and scope.
pub fn unchanged(before: &VipSpec, after: &VipSpec) -> Vec<IpAddr> {
    let like = |spec: &VipSpec| (spec.interface.clone(), spec.label.clone(), spec.scope);
    if like(before) != like(after) {
        return Vec::new();
    }
    let both = before.addresses.iter();
    both.filter(|a| after.addresses.contains(a))
        .map(|a| a.ip)
        .filter(|ip| before.carrier_of(*ip) == after.carrier_of(*ip))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::testing::{address, vip};
    use crate::spec::{Scope, VrrpMac, VrrpSpec};

    #[test]
    fn only_what_is_the_same_in_every_respect_is_unchanged() {
        type Edit = fn(&mut VipSpec);
        let virtual_mac = |s: &mut VipSpec| {
            s.vrrp = Some(Box::new(VrrpSpec {
                mac: VrrpMac::Virtual,
                ..VrrpSpec::new(51)
            }));
        };
        let cases: [(&str, Edit, &[usize]); 9] = [
            ("nothing", |_| {}, &[0, 1, 2]),
            (
                "one replaced, in another order",
                |s| {
                    s.addresses[1] = address("192.0.2.3/32");
                    s.addresses.reverse();
                },
                &[0, 2],
            ),
            (
                "one more",
                |s| s.addresses.push(address("192.0.2.3/32")),
                &[0, 1, 2],
            ),
            ("a prefix length", |s| s.addresses[0].prefix = 24, &[1, 2]),
            (
                "all replaced",
                |s| s.addresses = vec![address("192.0.2.9/32")],
                &[],
            ),
            ("the interface", |s| s.interface = "eth9".to_owned(), &[]),
            ("the MAC", virtual_mac, &[]),
            ("the label", |s| s.label = Some("eth0:x".to_owned()), &[]),
            ("the scope", |s| s.scope = Scope::Link, &[]),
        ];
        let before = vip("web", &["192.0.2.1/32", "192.0.2.2/32", "2001:db8::1/128"]);
        for (what, edit, expected) in cases {
            let mut after = before.clone();
            edit(&mut after);
            let expected: Vec<IpAddr> = expected.iter().map(|i| before.addresses[*i].ip).collect();
            assert_eq!(unchanged(&before, &after), expected, "{what}");
        }
    }
}
