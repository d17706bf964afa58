//! Each rule with a declaration that breaks it and nothing else, and the words it is told.

use super::*;
use crate::spec::testing::{address, node, vip};
use crate::spec::{NodeSpec, Role};

fn good() -> VipSpec {
    vip("web", &["192.0.2.10/24", "2001:db8::10/64"])
}

#[test]
fn a_good_vip_passes() {
    let mut v = good();
    v.label = Some("eth0:web".to_owned());
    v.placement.priority = [("n1".parse().unwrap(), 254), ("n2".parse().unwrap(), 0)].into();
    v.placement.preempt = Preempt::Preempt;
    v.placement.preempt_delay = MAX_PREEMPT_DELAY;
    v.placement.colocate_with = ["a".parse().unwrap()].into();
    v.placement.avoid = ["b".parse().unwrap()].into();
    assert_eq!(v.validate(), Ok(()));
}

#[test]
fn usable_addresses() {
    for a in [
        "192.0.2.10/24",
        "192.0.2.0/31",
        "192.0.2.255/32",
        "192.0.2.0/32",
        "10.255.255.1/8",
        "2001:db8::/127",
        "2001:db8::/128",
        "fe80::1/64",
        "fd00::5/64",
        "128.0.0.1/1",
    ] {
        assert_eq!(vip("v", &[a]).validate(), Ok(()), "{a}");
    }
}

#[test]
fn unusable_addresses_say_why() {
    for (a, field, words) in [
        ("0.0.0.0/32", "ip", "this network"),
        ("0.1.2.3/32", "ip", "this network"),
        ("127.0.0.1/8", "ip", "loopback"),
        ("224.0.0.18/32", "ip", "multicast"),
        ("255.255.255.255/32", "ip", "broadcast"),
        ("240.0.0.1/32", "ip", "reserved"),
        ("169.254.1.1/16", "ip", "RFC 3927"),
        ("192.0.2.0/24", "ip", "network /24 itself"),
        (
            "192.0.2.255/24",
            "ip",
            "broadcast address of its network /24",
        ),
        ("192.0.2.3/30", "ip", "broadcast"),
        ("192.0.2.1/0", "prefix", "expected 1 to 32 for IPv4"),
        ("192.0.2.1/33", "prefix", "prefix length 33"),
        ("::/128", "ip", "unspecified"),
        ("::1/128", "ip", "loopback"),
        ("ff02::12/128", "ip", "multicast"),
        (
            "::ffff:192.0.2.1/128",
            "ip",
            "write the IPv4 address itself",
        ),
        ("::192.0.2.1/128", "ip", "reserved"),
        ("2001:db8::/64", "ip", "Subnet-Router anycast"),
        ("2001:db8::1/129", "prefix", "expected 1 to 128 for IPv6"),
        ("2001:db8::1/0", "prefix", "prefix length 0"),
    ] {
        let errors = vip("v", &["198.51.100.1/32", a]).validate().unwrap_err();
        assert_eq!(errors.len(), 1, "{a}: {errors:?}");
        assert_eq!(errors[0].field, format!("addresses[1].{field}"));
        assert!(errors[0].to_string().contains(words), "{a}: {}", errors[0]);
    }
}

/// (what is done to a good VIP, field, words)
type Case = (fn(&mut VipSpec), &'static str, &'static [&'static str]);

#[test]
fn each_rule_of_a_vip() {
    let cases: &[Case] = &[
        (
            |v| v.addresses.clear(),
            "addresses",
            &["VIP web has 0 addresses", "1 to 64"],
        ),
        (
            |v| {
                v.addresses = (1..=65)
                    .map(|i| address(&format!("192.0.2.{i}/32")))
                    .collect()
            },
            "addresses",
            &["65 addresses"],
        ),
        (
            |v| v.addresses.push(address("192.0.2.10/32")),
            "addresses[2].ip",
            &["192.0.2.10", "twice"],
        ),
        (|v| v.interface = String::new(), "interface", &["empty"]),
        (
            |v| v.interface = "a".repeat(16),
            "interface",
            &["too long", "1 to 15 bytes"],
        ),
        (|v| v.interface = "..".into(), "interface", &["reserves"]),
        (
            |v| v.interface = "eth/0".into(),
            "interface",
            &["\"eth/0\"", "'/'"],
        ),
        (|v| v.interface = "eth 0".into(), "interface", &["blank"]),
        (|v| v.interface = "eth0:1".into(), "interface", &["':'"]),
        (
            |v| v.label = Some("eth1:web".into()),
            "label",
            &["begin with the interface name \"eth0\""],
        ),
        (
            |v| v.label = Some("eth0:0123456789ab".into()),
            "label",
            &["17 bytes", "at most 15"],
        ),
        (
            |v| v.label = Some("eth0:w b".into()),
            "label",
            &["printable"],
        ),
        (
            |v| {
                v.label = Some("eth0:w".into());
                v.addresses.remove(0);
            },
            "label",
            &["no IPv4 address"],
        ),
        (
            |v| {
                v.placement.priority.insert("n1".parse().unwrap(), 255);
            },
            "placement.priority.n1",
            &["255", "0 to 254"],
        ),
        (
            |v| v.placement.preempt_delay = Duration::from_secs(1),
            "placement.preempt_delay",
            &["sticky", "1s"],
        ),
        (
            |v| {
                v.placement.preempt = Preempt::Preempt;
                v.placement.preempt_delay = Duration::from_secs(1001);
            },
            "placement.preempt_delay",
            &["1001s", "at most 1000s"],
        ),
        (
            |v| {
                v.placement.colocate_with.insert(v.name.clone());
            },
            "placement.colocate_with",
            &["names itself"],
        ),
        (
            |v| {
                v.placement.avoid.insert(v.name.clone());
            },
            "placement.avoid",
            &["names itself"],
        ),
        (
            |v| {
                for set in [&mut v.placement.colocate_with, &mut v.placement.avoid] {
                    set.insert("db".parse().unwrap());
                }
            },
            "placement.avoid",
            &["VIP web must be with db", "away from it"],
        ),
        (
            |v| v.placement.avoid = (0..65).map(|i| format!("v{i}").parse().unwrap()).collect(),
            "placement.avoid",
            &["65 VIPs", "at most 64"],
        ),
        (
            |v| {
                v.placement.priority = (0..65)
                    .map(|i| (format!("n{i}").parse().unwrap(), 1))
                    .collect()
            },
            "placement.priority",
            &["65 nodes", "at most 64"],
        ),
    ];
    for (change, field, words) in cases {
        let mut v = good();
        change(&mut v);
        let errors = v.validate().expect_err(field);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let text = errors[0].to_string();
        assert_eq!(errors[0].field, *field, "{text}");
        assert!(
            words.iter().all(|w| text.contains(w)),
            "{words:?} in {text}"
        );
    }
}

fn three() -> Vec<NodeSpec> {
    vec![
        node(1, Role::Member),
        node(2, Role::Member),
        node(3, Role::Witness),
    ]
}

fn two() -> Vec<VipSpec> {
    vec![vip("a", &["192.0.2.1/24"]), vip("b", &["192.0.2.2/24"])]
}

#[test]
fn a_good_cluster_passes() {
    assert_eq!(validate_all(&two(), &three()), []);
    assert_eq!(validate_all(&[], &three()[..1]), []);
}

/// (what is done to a good cluster, field, words)
type ClusterCase = (
    fn(&mut Vec<VipSpec>, &mut Vec<NodeSpec>),
    &'static str,
    &'static str,
);

#[test]
fn each_rule_of_a_cluster() {
    let cases: &[ClusterCase] = &[
        (
            |v, _| v[1].name = v[0].name.clone(),
            "vips[1].name",
            "VIP a is declared twice, first in vips[0]",
        ),
        (
            |v, _| v[1].addresses.push(address("192.0.2.1/32")),
            "vips[1].addresses[1].ip",
            "of VIP b belongs to VIP a already",
        ),
        (
            |v, _| v[1].addresses[0].prefix = 40,
            "vips[1].addresses[0].prefix",
            "prefix length 40",
        ),
        (
            |v, _| v[0].addresses.push(address("10.0.0.2/24")),
            "vips[0].addresses[1].ip",
            "the address of node n2 itself",
        ),
        (
            |v, _| {
                v[0].placement.colocate_with.insert("x".parse().unwrap());
            },
            "vips[0].placement.colocate_with",
            "VIP x, which does not exist",
        ),
        (
            |v, _| {
                v[1].placement.avoid.insert("x".parse().unwrap());
            },
            "vips[1].placement.avoid",
            "VIP x, which does not exist",
        ),
        (
            |v, _| {
                v[0].placement.priority.insert("n9".parse().unwrap(), 5);
            },
            "vips[0].placement.priority.n9",
            "node n9, which does not exist",
        ),
        (
            |v, _| {
                v[0].placement.priority = (1..=2)
                    .map(|i| (format!("n{i}").parse().unwrap(), 0))
                    .collect()
            },
            "vips[0].placement.priority",
            "priority 0 on every node",
        ),
        (|_, n| n.clear(), "nodes", "0 nodes"),
        (
            |_, n| n[1].id = n[0].id,
            "nodes[1].id",
            "same id 1 as node n1, listed in nodes[0]",
        ),
        (
            |_, n| n[2].name = n[0].name.clone(),
            "nodes[2].name",
            "same name n1",
        ),
        (
            |_, n| n[2].address = n[1].address,
            "nodes[2].address",
            "same address 10.0.0.2:7400 as node n2",
        ),
        (
            |_, n| n[2].address = (n[1].address.ip(), 7500).into(),
            "nodes[2].address",
            "same address 10.0.0.2 as node n2, only with another port 7500",
        ),
        (|_, n| n[0].id.0 = 0, "nodes[0].id", "expected 1 or larger"),
        (
            |_, n| n[0].address.set_port(0),
            "nodes[0].address",
            "10.0.0.1:0",
        ),
        (
            |_, n| n.iter_mut().for_each(|n| n.role = Role::Witness),
            "nodes",
            "every node is a witness",
        ),
    ];
    for (change, field, words) in cases {
        let (mut vips, mut nodes) = (two(), three());
        change(&mut vips, &mut nodes);
        let found = validate_all(&vips, &nodes);
        assert_eq!(found.len(), 1, "{field}: {found:#?}");
        let text = found[0].to_string();
        assert_eq!(
            (found[0].field.as_str(), found[0].severity),
            (*field, Severity::Error),
            "{text}"
        );
        assert!(text.contains(words), "{words:?} in {text}");
    }
}

#[test]
fn an_even_number_of_voters_is_a_warning() {
    let mut nodes = three();
    nodes.push(node(4, Role::Member));
    let found = validate_all(&two(), &nodes);
    assert_eq!((found.len(), found[0].severity), (1, Severity::Warning));
    assert!(
        found[0].message.contains("4 voters survive the loss of 1"),
        "{}",
        found[0]
    );
}

#[test]
fn groups_that_cannot_be() {
    let mut vips: Vec<VipSpec> = (1..=3)
        .map(|i| vip(&format!("v{i}"), &[&format!("192.0.2.{i}/24")]))
        .collect();
    vips[0]
        .placement
        .colocate_with
        .insert("v2".parse().unwrap());
    vips[1]
        .placement
        .colocate_with
        .insert("v3".parse().unwrap());
    vips[2]
        .placement
        .colocate_with
        .insert("v1".parse().unwrap());
    assert_eq!(validate_all(&vips, &three()), [], "a circle is one group");

    let mut split = vips.clone();
    split[1].placement.avoid.insert("v1".parse().unwrap());
    let found = validate_all(&split, &three());
    assert_eq!(
        (found.len(), found[0].field.as_str()),
        (1, "vips[1].placement.avoid"),
        "{found:?}"
    );
    assert!(found[0].message.contains("v1, v2, v3"), "{}", found[0]);

    let mut nowhere = vips;
    nowhere[0]
        .placement
        .priority
        .insert("n1".parse().unwrap(), 0);
    nowhere[2]
        .placement
        .priority
        .insert("n2".parse().unwrap(), 0);
    let found = validate_all(&nowhere, &three());
    assert_eq!(
        (found.len(), found[0].field.as_str()),
        (1, "vips[0].placement.priority"),
        "{found:?}"
    );
    assert!(
        found[0]
            .message
            .contains("no node may hold all of v1, v2, v3"),
        "{}",
        found[0]
    );
}

#[test]
fn nodes_that_clash_in_several_ways_are_told_all_of_them() {
    let mut nodes = three();
    nodes[1].id = nodes[0].id;
    nodes[1].name = nodes[0].name.clone();
    nodes[1].address = nodes[0].address;
    let found = validate_all(&[], &nodes);
    let fields: Vec<&str> = found.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, ["nodes[1].id", "nodes[1].name", "nodes[1].address"]);
}
