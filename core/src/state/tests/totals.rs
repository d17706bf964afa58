//! How many addresses all VIPs together may have.

use super::*;
use crate::spec::validate::validate_all;
use crate::spec::{MAX_ADDRESSES, MAX_TOTAL_ADDRESSES, Role};

/// VIP `i` with its own `count` addresses.
fn wide(i: usize, count: usize) -> VipSpec {
    let text = |k: usize| format!("198.18.{i}.{k}/32");
    let texts: Vec<String> = (1..=count).map(text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    crate::spec::testing::vip(&format!("w{i}"), &texts)
}

#[test]
fn all_vips_together_have_a_bounded_number_of_addresses() {
    let full: Vec<VipSpec> = (0..MAX_TOTAL_ADDRESSES / MAX_ADDRESSES)
        .map(|i| wide(i, MAX_ADDRESSES))
        .collect();
    let mut s = cluster(2, &full);
    assert_eq!(s.addresses.len(), MAX_TOTAL_ADDRESSES);
    let text = s.refuses(Command::PutVip(web()), RejectionKind::Invalid);
    let limit = MAX_TOTAL_ADDRESSES.to_string();
    assert!(
        text.contains("VIP web is refused") && text.contains(&limit),
        "{text}"
    );
    // An edit that takes no more of them is fine, and what it frees can be used.
    let kept = wide(0, MAX_ADDRESSES);
    s.ok(Command::PutVip(VipSpec {
        interface: "eth1".into(),
        ..kept
    }));
    let freed = MAX_ADDRESSES - web().addresses.len();
    s.ok(Command::PutVip(wide(0, freed)));
    s.ok(Command::PutVip(web()));
    s.refuses(Command::PutVip(wide(0, freed + 1)), RejectionKind::Invalid);
}

#[test]
fn a_configuration_with_too_many_addresses_is_refused() {
    let nodes: Vec<_> = (1..=3)
        .map(|i| crate::spec::testing::node(i, Role::Member))
        .collect();
    let mut vips: Vec<VipSpec> = (0..MAX_TOTAL_ADDRESSES / MAX_ADDRESSES)
        .map(|i| wide(i, MAX_ADDRESSES))
        .collect();
    assert_eq!(validate_all(&vips, &nodes), []);
    vips.push(web());
    let found = validate_all(&vips, &nodes);
    assert_eq!(
        (found.len(), found[0].field.as_str()),
        (1, "vips"),
        "{found:?}"
    );
}
