use super::*;
use crate::spec::testing::vip;
use crate::spec::{VipSpec, VrrpMac, VrrpSpec};

fn faced(vip_name: &str, address: &str, vrid: u8) -> VipSpec {
    VipSpec {
        vrrp: Some(Box::new(VrrpSpec::new(vrid))),
        ..vip(vip_name, &[address])
    }
}

#[test]
fn commands_carry_faces_beside_specs() {
    let spec = faced("v", "192.0.2.1/24", 51);
    let mut s = cluster(2, &[]);
    s.ok(Command::put_vip(spec.clone()));
    assert_eq!(s.vips[&name("v")].spec, spec);
    // As it comes back from the log of another node, so it must be applied here.
    s.ok(Command::PutVip(spec.clone()));
    assert_eq!(s.vips[&name("v")].spec.vrrp, None);
    let first = Command::bootstrap(7, vec![node(1, Role::Member)], vec![spec.clone()]);
    assert!(matches!(first, Command::BootstrapWithVrrp { .. }));
    let mut formed = State::default();
    formed.ok(first);
    assert_eq!(formed.vips[&name("v")].spec, spec);
    let plain = Command::bootstrap(7, vec![node(1, Role::Member)], vec![]);
    assert!(matches!(plain, Command::Bootstrap { .. }));
}

#[test]
fn an_edit_that_moves_addresses_to_another_interface_is_a_new_epoch() {
    let with = |vrid, mac| {
        let mut spec = faced("v", "192.0.2.1/24", vrid);
        spec.vrrp.as_mut().unwrap().mac = mac;
        spec
    };
    let mut s = cluster(2, &[]);
    s.ok(Command::put_vip(with(51, VrrpMac::Interface)));
    let first = s.give("v", 1);
    s.ok(Command::put_vip(with(51, VrrpMac::Virtual)));
    let second = s.vips[&name("v")].epoch();
    assert!(second > first);
    // It stays on the same interface.
    s.ok(Command::put_vip(with(51, VrrpMac::VirtualXmitBase)));
    assert_eq!(s.vips[&name("v")].epoch(), second);
    s.ok(Command::put_vip(with(52, VrrpMac::VirtualXmitBase)));
    assert!(s.vips[&name("v")].epoch() > second);
    let last = s.history.back().unwrap();
    assert!(last.evidence.contains("virtual MAC"), "{}", last.evidence);
}

#[test]
fn a_face_is_edited_without_a_new_epoch() {
    let spec = faced("v", "192.0.2.1/24", 51);
    let mut s = cluster(2, &[]);
    s.ok(Command::put_vip(spec.clone()));
    let epoch = s.give("v", 1);
    s.ok(Command::put_vip(faced("v", "192.0.2.1/24", 52)));
    assert_eq!(s.vips[&name("v")].epoch(), epoch);
    assert_eq!(s.history.back().unwrap().evidence, "its VRRP face changed");
}

#[test]
fn a_virtual_router_id_is_that_of_one_vip() {
    let mut s = cluster(2, &[]);
    s.ok(Command::put_vip(faced("a", "192.0.2.1/24", 51)));
    let second = faced("b", "192.0.2.2/24", 51);
    let text = s.refuses(Command::put_vip(second.clone()), RejectionKind::Conflict);
    assert!(
        text.contains("virtual router id 51 on eth0 is that of VIP a already"),
        "{text}"
    );
    s.ok(Command::put_vip(faced("six", "2001:db8::1/64", 51)));
    s.ok(Command::put_vip(VipSpec {
        interface: "eth1".to_owned(),
        ..second
    }));
    let text = s.refuses(
        Command::put_vip(faced("c", "192.0.2.3/24", 0)),
        RejectionKind::Invalid,
    );
    assert!(text.contains("vrrp.vrid"), "{text}");
}

#[test]
fn yields_pass_over_what_is_gone() {
    let mut s = cluster(2, &[]);
    s.ok(Command::put_vip(faced("a", "192.0.2.1/24", 51)));
    s.give("a", 1);
    let evidence = |text: &str| Some(text.to_owned());
    s.ok(Command::Yields(vec![
        (name("gone"), evidence("x")),
        (name("a"), evidence("held by 192.0.2.9")),
    ]));
    assert_eq!(s.vips[&name("a")].owner(), None);
    let events = s.revision;
    s.ok(Command::Yields(vec![(
        name("a"),
        evidence("held by 192.0.2.8"),
    )]));
    assert_eq!(s.vips[&name("a")].yielded, evidence("held by 192.0.2.8"));
    assert_eq!(
        s.revision, events,
        "the same state of things, in other words"
    );
    s.ok(Command::Yields(vec![(name("a"), None)]));
    assert_eq!(s.vips[&name("a")].yielded, None);
}
