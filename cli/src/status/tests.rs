//! The status of a healthy and of a troubled cluster, word for word.

use buoy_proto::v1::Quorum;

use super::*;
use crate::fixtures::{node_ref, status};

#[test]
fn a_healthy_cluster() {
    let s = status();
    assert!(is_healthy(&s));
    assert_eq!(
        render(&s),
        "\
Cluster prod: healthy (as n1 sees it)
Quorum  3 of 3 voters heard, 2 needed
Leader  n2, term 4
VIPs    2 of 2 owned exactly once
Late    n1's lease thread woke up at most 0.4 ms late in the last minute, 12.3 ms since its start

VIP    OWNER  LEASE  EPOCH  SINCE (UTC)              ADDRESSES
web-a  n1     held   7      2023-11-14 22:13:20.000  192.168.192.13/24
web-b  n2     held   9      2023-11-14 22:13:20.000  192.168.192.14/24

NODE  ID  ROLE     STATE       HEARD      ACTIVE VIPS  ADDRESS              VERSION
n1    1   member   up          10 ms ago  web-a        192.168.192.11:7400  0.1.0
n2    2   member   up, leader  20 ms ago  web-b        192.168.192.12:7400  0.1.0
n3    3   witness  up          30 ms ago  -            192.168.192.13:7400  0.1.0
"
    );
}

#[test]
fn a_troubled_cluster() {
    let mut s = status();
    s.quorum = Some(Quorum {
        heard: 1,
        voters: 3,
        needed: 2,
        ok: false,
    });
    s.leader = None;
    s.problems = vec!["no quorum: 1 of 3 voters are heard".into()];
    s.quarantine_ms = 120;
    s.nodes[1].alive = false;
    s.nodes[1].leader = false;
    s.nodes[1].heard_ms_ago = None;
    s.nodes[2].drained = Some("disk swap".into());
    s.nodes[0].warnings = vec!["no realtime scheduling".into(), "no TLS".into()];
    s.nodes[2].warnings = vec!["no TLS".into()];
    s.vips[1].problem = "its owner n2 was last heard 900 ms ago".into();
    s.vips[1].pinned = Some(node_ref(2));
    assert!(!is_healthy(&s));
    assert_eq!(
        render(&s),
        "\
Cluster prod: NOT HEALTHY (as n1 sees it)
Quorum  1 of 3 voters heard, 2 needed: NO QUORUM
Leader  NONE known
VIPs    1 of 2 owned exactly once
Late    n1's lease thread woke up at most 0.4 ms late in the last minute, 12.3 ms since its start

VIP    OWNER  LEASE     EPOCH  SINCE (UTC)              ADDRESSES
web-a  n1     held      7      2023-11-14 22:13:20.000  192.168.192.13/24
web-b  n2     held (!)  9      2023-11-14 22:13:20.000  192.168.192.14/24

NODE  ID  ROLE     STATE        HEARD      ACTIVE VIPS  ADDRESS              VERSION
n1    1   member   up           10 ms ago  web-a        192.168.192.11:7400  0.1.0
n2    2   member   SILENT       never      web-b        192.168.192.12:7400  0.1.0
n3    3   witness  up, drained  30 ms ago  -            192.168.192.13:7400  0.1.0

Problems
  - no quorum: 1 of 3 voters are heard

Warnings
  - n1 has just started and promises no leases for another 120 ms
  - node n3 is drained: disk swap
  - n1: no realtime scheduling
  - n1, n3: no TLS
  - VIP web-b is pinned to n2 (`buoy vip move web-b --auto` ends that)
"
    );
}

#[test]
fn each_trouble_alone_is_unhealthy() {
    type Spoil = fn(&mut StatusResponse);
    let spoils: [Spoil; 8] = [
        |s| s.quorum = None,
        |s| s.leader = None,
        |s| s.bootstrapped = false,
        |s| s.nodes[2].alive = false,
        |s| s.nodes[0].faults.push("fence broken".into()),
        |s| s.vips[0].problem = "x".into(),
        |s| s.vips[0].ownership = None,
        |s| s.nodes[1].active.push("web-a".into()),
    ];
    for (i, spoil) in spoils.iter().enumerate() {
        let mut s = status();
        spoil(&mut s);
        assert!(!is_healthy(&s), "{i}");
        assert!(render(&s).contains("NOT HEALTHY"));
    }
}

#[test]
fn a_vip_on_two_nodes_is_named() {
    let mut s = status();
    s.nodes[1].active.push("web-a".into());
    let text = render(&s);
    assert!(
        text.contains("VIP web-a: n1 and n2 say that it is active"),
        "{text}"
    );
    s.nodes[1].alive = false;
    assert!(
        !render(&s).contains("say that it is active"),
        "the report of a silent node is old"
    );
}

#[test]
fn what_moves_all_the_time_is_no_change() {
    let (a, mut b) = (status(), status());
    b.nodes[0].heard_ms_ago = Some(1);
    b.applied += 1;
    b.lateness.as_mut().unwrap().wakes += 1;
    b.vips[0].ownership.as_mut().unwrap().lease_remaining_ms = 3;
    assert_eq!(steady(&a), steady(&b));
    b.vips[0].ownership.as_mut().unwrap().epoch += 1;
    assert_ne!(steady(&a), steady(&b));
    let (mut c, mut d) = (status(), status());
    c.vips[0].problem = "ä 1 ms".into();
    d.vips[0].problem = "ä 2 ms".into();
    assert_eq!(steady(&c), steady(&d));
    d.vips[0].problem.clear();
    assert_ne!(steady(&c), steady(&d));
}
