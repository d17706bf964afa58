//! What is said about VIPs, word for word.

use buoy_proto::v1::{Candidate, Cause, Change, EventKind, ExplainResponse, LeaseState};

use super::*;
use crate::fixtures::{node_ref, vip};

#[test]
fn a_list() {
    let mut vips = vec![
        vip("web-a", "192.168.192.13", 1, 7),
        vip("web-b", "192.168.192.14", 2, 9),
    ];
    let o = vips[1].ownership.as_mut().unwrap();
    o.owner = None;
    o.epoch = 0;
    o.lease_state = LeaseState::None.into();
    vips[1].problem = "nobody owns it".into();
    assert_eq!(
        render_list(&vips),
        "\
VIP    OWNER  LEASE  EPOCH  INTERFACE  ADDRESSES          PROBLEM
web-a  n1     held   7      eth0       192.168.192.13/24  -
web-b  -      none   0      eth0       192.168.192.14/24  nobody owns it
"
    );
    assert!(render_list(&[]).contains("buoy vip put"));
    assert!(vip_is_healthy(&vips[0]) && !vip_is_healthy(&vips[1]));
}

#[test]
fn one_vip() {
    let mut v = vip("web-a", "192.168.192.13", 1, 7);
    v.pinned = Some(node_ref(1));
    v.spec.as_mut().unwrap().label = Some("eth0:web".into());
    assert_eq!(
        render_vip(&v),
        "\
VIP web-a
  addresses  192.168.192.13/24
  interface  eth0, label eth0:web, scope global
  owner      n1, epoch 7, since 2023-11-14 22:13:20.000 UTC
  lease      held, 251 ms left if it is not renewed
  placement  sticky
  priority   n1=150
  pinned     to n1 by a move
"
    );
}

#[test]
fn vips_are_found_by_name_and_by_address() {
    let vips = [
        vip("web-a", "192.168.192.13", 1, 7),
        vip("web-b", "2001:db8::1", 2, 9),
    ];
    let name = |text: &str| find(&vips, text).map(|v| v.spec.as_ref().unwrap().name.as_str());
    assert_eq!(name("web-b"), Some("web-b"));
    assert_eq!(name("192.168.192.13"), Some("web-a"));
    assert_eq!(name("192.168.192.13/24"), Some("web-a"));
    assert_eq!(name("2001:DB8:0::1"), Some("web-b"));
    assert_eq!(name("web"), None);
    assert_eq!(name("10.0.0.1"), None);
}

#[test]
fn moves() {
    let mut m = MoveVipResponse {
        from: Some(node_ref(1)),
        to: Some(node_ref(2)),
        epoch: 12,
        active: true,
        decided_us: 1_240,
        total_us: 5_610,
        revision: 3,
    };
    assert_eq!(
        render_move("web", &m),
        "VIP web: n1 -> n2, epoch 12; decided in 1.2 ms, active after 5.6 ms"
    );
    m.active = false;
    assert!(render_move("web", &m).contains("n2 has not said within 5.6 ms"));
    m.to = None;
    assert!(render_move("web", &m).contains("nobody owns it"));
}

#[test]
fn an_explanation() {
    let candidate = |id: u64, owner: bool, reasons: &[&str]| Candidate {
        node: Some(node_ref(id)),
        owner,
        eligible: owner,
        priority: 100,
        rank: u32::from(owner),
        pinned: owner,
        reasons: reasons.iter().map(|r| (*r).to_owned()).collect(),
    };
    let e = ExplainResponse {
        vip: Some(vip("web", "10.0.0.9", 1, 7)),
        candidates: vec![
            candidate(1, true, &["it has the highest priority"]),
            candidate(2, false, &["drained (disk)", "interface eth0 is down"]),
        ],
        why: "An operator moved it.".into(),
        summary: "It stays on n1.".into(),
        group: vec!["db".into(), "web".into()],
        answered_by: Some(node_ref(3)),
        by_leader: false,
    };
    assert_eq!(
        explain::render(&e),
        "\
VIP web: n1 owns it, epoch 7, lease held
  An operator moved it.
  It stays on n1.
  always on one node: db, web

RANK  NODE  OWNER  ELIGIBLE  PRIORITY      WHY
1     n1    yes    yes       100 (pinned)  it has the highest priority
-     n2    no     no        100           drained (disk)
                                           interface eth0 is down

By the records of n3, which is not the leader: the leader's decide.
"
    );
}

#[test]
fn the_history() {
    let mut c = Change {
        revision: 12,
        index: 90,
        at_unix_ms: 1_700_000_000_000,
        kind: EventKind::Assigned.into(),
        vip: "web".into(),
        epoch: 90,
        from: "n1".into(),
        to: "n2".into(),
        cause: Cause::OwnerSilent.into(),
        evidence: "n1 silent for 204 ms".into(),
        ..Change::default()
    };
    assert_eq!(
        history::render(std::slice::from_ref(&c)),
        "\
REV  TIME (UTC)               EVENT     VIP/NODE  EPOCH  OWNER     CAUSE         EVIDENCE
12   2023-11-14 22:13:20.000  assigned  web       90     n1 -> n2  owner-silent  n1 silent for 204 ms
"
    );
    assert_eq!(
        history::line(&c),
        "12  2023-11-14 22:13:20.000  assigned web: n1 -> n2 (epoch 90); owner-silent; n1 silent for 204 ms"
    );
    (c.vip, c.node, c.epoch) = (String::new(), "n3".into(), 0);
    (c.from, c.to, c.cause) = (String::new(), String::new(), 0);
    c.kind = EventKind::NodeDrained.into();
    assert_eq!(
        history::line(&c),
        "12  2023-11-14 22:13:20.000  node-drained n3; n1 silent for 204 ms"
    );
    assert_eq!(history::render(&[]), "no events\n");
}
