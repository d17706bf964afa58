use super::*;
use crate::placement::testing::World;
use crate::spec::testing::vip;
use crate::spec::{VipSpec, VrrpSpec};
use crate::state::testing::name;
use crate::state::{Cause, Command, Settings};

fn faced(vip_name: &str, last: u8) -> VipSpec {
    VipSpec {
        vrrp: Some(Box::new(VrrpSpec::new(last))),
        ..vip(vip_name, &[&format!("192.0.2.{last}/24")])
    }
}

/// Three members that hold `v`, and say what they hear.
fn world(vips: &[VipSpec]) -> World {
    let mut w = World::new(3, &[]);
    for v in vips {
        w.state.ok(Command::put_vip(v.clone()));
    }
    w.settle();
    w
}

fn hears(w: &mut World, id: u64, vip_name: &str, what: Hearing) {
    w.report(id).vrrp.insert(name(vip_name), what);
}

fn outranked() -> Hearing {
    Hearing::Outranked("192.0.2.9 (priority 200)".to_owned())
}

/// Applies what is wanted; it must be stable.
fn step(w: &mut World) -> Vec<(String, bool)> {
    let wanted = yields(&w.state, &w.health, &w.params);
    if !wanted.is_empty() {
        w.state.ok(Command::Yields(wanted.clone()));
    }
    assert_eq!(yields(&w.state, &w.health, &w.params), []);
    wanted
        .into_iter()
        .map(|(n, e)| (n.to_string(), e.is_some()))
        .collect()
}

#[test]
fn a_vip_is_left_to_a_better_router_and_taken_back() {
    let mut w = world(&[faced("v", 1)]);
    assert!(w.owner("v").is_some());
    assert_eq!(step(&mut w), []);
    hears(&mut w, 1, "v", Hearing::Clear);
    hears(&mut w, 2, "v", outranked());
    assert_eq!(step(&mut w), [("v".to_owned(), true)]);
    assert_eq!(w.owner("v"), None);
    let event = w.state.history.back().unwrap();
    assert_eq!(event.cause, Some(Cause::Yielded));
    let words = "v is held by 192.0.2.9 (priority 200)";
    assert_eq!(event.evidence, words);
    assert!(w.settle().is_empty(), "a yielded VIP is not placed");

    // One that cannot tell is no reason to take it back.
    hears(&mut w, 1, "v", Hearing::Unsure);
    hears(&mut w, 2, "v", Hearing::Unsure);
    assert_eq!(step(&mut w), []);
    w.report(2).vrrp.clear();
    assert_eq!(step(&mut w), []);
    hears(&mut w, 1, "v", Hearing::Clear);
    assert_eq!(step(&mut w), [("v".to_owned(), false)]);
    w.settle();
    assert!(w.owner("v").is_some());
}

#[test]
fn a_silent_node_says_nothing() {
    let mut w = world(&[faced("v", 1)]);
    hears(&mut w, 2, "v", outranked());
    w.silent(2, 60_000);
    assert_eq!(step(&mut w), []);
}

#[test]
fn vips_that_are_together_are_yielded_together() {
    let mut b = faced("b", 2);
    b.placement.colocate_with.insert(name("a"));
    let mut plain = vip("c", &["192.0.2.3/24"]);
    plain.placement.colocate_with.insert(name("a"));
    let mut w = world(&[faced("a", 1), b, plain]);
    hears(&mut w, 1, "a", outranked());
    hears(&mut w, 1, "b", Hearing::Clear);
    let both = |yielded| [("a".to_owned(), yielded), ("b".to_owned(), yielded)];
    assert_eq!(step(&mut w), both(true));
    assert!(w.owner("c").is_some(), "no router outside knows it");
    hears(&mut w, 1, "a", Hearing::Clear);
    assert_eq!(step(&mut w), both(false));
}

#[test]
fn frozen_placement_yields_but_takes_nothing_back() {
    let mut w = world(&[faced("v", 1)]);
    w.state.ok(Command::Settings(Settings { frozen: true }));
    hears(&mut w, 1, "v", outranked());
    assert_eq!(step(&mut w), [("v".to_owned(), true)]);
    hears(&mut w, 1, "v", Hearing::Clear);
    assert_eq!(step(&mut w), []);
}

#[test]
fn without_its_face_a_vip_is_taken_back() {
    let mut w = world(&[faced("v", 1)]);
    hears(&mut w, 1, "v", outranked());
    step(&mut w);
    w.state.ok(Command::put_vip(vip("v", &["192.0.2.1/24"])));
    assert_eq!(step(&mut w), [("v".to_owned(), false)]);
}
