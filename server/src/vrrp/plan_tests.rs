use buoy_core::Epoch;
use buoy_core::health::{NodeHealth, NodeReport};
use buoy_core::spec::{PlacementSpec, Scope, VipAddress};
use buoy_core::state::{Assignment, Command, Entry};
use buoy_fence::link::{ARPHRD_ETHER, Link};

use super::*;

fn node(id: u64, role: Role) -> NodeSpec {
    NodeSpec {
        id: NodeId(id),
        name: format!("n{id}").parse().unwrap(),
        address: format!("192.0.2.{id}:7400").parse().unwrap(),
        role,
    }
}

fn vip(addresses: &[&str], change: impl FnOnce(&mut VrrpSpec)) -> VipSpec {
    let mut face = VrrpSpec::new(51);
    change(&mut face);
    let address = |text: &&str| VipAddress {
        ip: text.parse().unwrap(),
        prefix: 24,
    };
    VipSpec {
        name: "web".parse().unwrap(),
        addresses: addresses.iter().map(address).collect(),
        interface: "eth0".to_owned(),
        label: None,
        scope: Scope::Global,
        placement: PlacementSpec::default(),
        vrrp: Some(Box::new(face)),
    }
}

fn state(vip: VipSpec) -> State {
    let nodes = vec![
        node(1, Role::Member),
        node(2, Role::Member),
        node(3, Role::Witness),
    ];
    let mut state = State::default();
    let entry = Entry {
        at_unix_ms: 1,
        command: Command::bootstrap(7, nodes, vec![vip]),
    };
    assert_eq!(state.apply(1, &entry).rejected, None);
    state
}

fn found(ip: &str, flags: u32) -> FoundAddress {
    let ip: IpAddr = ip.parse().unwrap();
    FoundAddress {
        ip,
        prefix: 24,
        ifindex: 2,
        peer: ip,
        label: None,
        scope: 0,
        flags,
        valid: u32::MAX,
        preferred: u32::MAX,
    }
}

fn host(addresses: &[(&str, u32)]) -> Snapshot {
    let link = Link {
        index: 2,
        name: "eth0".to_owned(),
        mac: Some([2, 0, 0, 0, 0, 1]),
        up: true,
        carrier: true,
        mtu: 1500,
        arphrd: ARPHRD_ETHER,
        xdp: false,
    };
    Snapshot {
        links: [(2, link)].into(),
        addresses: addresses.iter().map(|(ip, f)| found(ip, *f)).collect(),
    }
}

fn source(plan: &Plan, v4: bool) -> Option<String> {
    let router = RouterId {
        vip: "web".parse().unwrap(),
        v4,
    };
    let place = plan.routers[&router].place?;
    assert_eq!(place.ifindex, 2);
    Some(place.source.to_string())
}

#[test]
fn each_family_has_a_router_that_sends_from_an_address_of_the_machine() {
    let state = state(vip(&["192.0.2.50", "2001:db8::50", "fe80::50"], |_| ()));
    let snapshot = host(&[
        ("192.0.2.50", 0),
        ("192.0.2.1", 0),
        ("fe80::50", 0),
        ("2001:db8::1", 0),
        ("fe80::9", 0x40),
        ("fe80::1", 0),
    ]);
    let plan = plan(&node(1, Role::Member), &state, &snapshot);
    assert_eq!(plan.problems, BTreeMap::new());
    assert_eq!(source(&plan, true).unwrap(), "192.0.2.1");
    assert_eq!(source(&plan, false).unwrap(), "fe80::1");
    let v6 = plan
        .routers
        .values()
        .find(|w| !w.expected.addresses[0].is_ipv4());
    let listed = &v6.unwrap().expected.addresses;
    assert_eq!(
        listed[0].to_string(),
        "fe80::50",
        "link-local addresses come first"
    );
    let v4 = plan.routers.values().next_back().unwrap();
    assert_eq!(v4.destinations, [IpAddr::from(GROUP_V4)]);
    assert_eq!(v4.addresses.len(), 3, "the lease covers all of the VIP");
}

#[test]
fn without_an_address_to_send_from_the_node_says_so() {
    let plain = state(vip(&["192.0.2.50"], |_| ()));
    let me = node(1, Role::Member);
    let none = plan(&me, &plain, &host(&[("192.0.2.50", 0)]));
    assert_eq!(source(&none, true), None);
    let problem = none.problems.values().next().unwrap();
    assert!(
        problem.contains("eth0: it has no IPv4 address"),
        "{problem}"
    );
    let told = |f: &mut VrrpSpec| {
        f.source = [("n1".parse().unwrap(), ["192.0.2.7".parse().unwrap()].into())].into();
    };
    let state = state(vip(&["192.0.2.50"], told));
    let wrong = plan(&me, &state, &host(&[("192.0.2.1", 0)]));
    let problem = wrong.problems.values().next().unwrap();
    assert!(problem.contains("192.0.2.7 of vrrp.source.n1"), "{problem}");
    let right = plan(&me, &state, &host(&[("192.0.2.1", 0), ("192.0.2.7", 0)]));
    assert_eq!(source(&right, true).unwrap(), "192.0.2.7");
    // Others report an interface that is down.
    let gone = plan(&me, &state, &Snapshot::default());
    assert_eq!((source(&gone, true), gone.problems.len()), (None, 0));
}

#[test]
fn unicast_goes_to_peers_and_members() {
    let state = state(vip(&["192.0.2.50"], |f| {
        f.unicast_peers = ["192.0.2.9".parse().unwrap()].into();
        f.source = [(
            "n2".parse().unwrap(),
            ["192.0.2.22".parse().unwrap()].into(),
        )]
        .into();
    }));
    let plan = plan(&node(1, Role::Member), &state, &host(&[("192.0.2.1", 0)]));
    let wish = plan.routers.values().next().unwrap();
    let to: Vec<String> = wish.destinations.iter().map(IpAddr::to_string).collect();
    assert_eq!(to, ["192.0.2.9", "192.0.2.22"], "not to the witness");
    let peers = vec!["192.0.2.9".parse().unwrap()];
    assert_eq!(wish.expected.delivery, Delivery::Unicast { peers });
}

#[test]
fn a_witness_plays_nothing() {
    let state = state(vip(&["192.0.2.50"], |_| ()));
    let snapshot = host(&[("192.0.2.3", 0)]);
    let plan = plan(&node(3, Role::Witness), &state, &snapshot);
    assert_eq!(plan, Plan::default());
}

#[test]
fn routers_outside_are_told_when_nobody_has_the_vip_any_more() {
    let (me, other) = (NodeId(1), NodeId(2));
    let name: VipName = "web".parse().unwrap();
    let mut state = state(vip(&["192.0.2.50"], |_| ()));
    let assign = |state: &mut State, to| {
        let vip = state.vips.get_mut(&name).unwrap();
        vip.assignment = to;
    };
    let held_by = |node| {
        Some(Assignment {
            node,
            epoch: Epoch(3),
            since_unix_ms: 1,
        })
    };
    // It may only have lost its lease: another one may have it by now.
    assign(&mut state, held_by(me));
    assert!(!gives_up(&state, me, &name, false));
    assert!(gives_up(&state, me, &name, true));
    for stopping in [false, true] {
        assign(&mut state, held_by(other));
        assert!(!gives_up(&state, me, &name, stopping), "moved");
        assign(&mut state, None);
        assert!(gives_up(&state, me, &name, stopping), "nobody can have it");
        let gone = State::default();
        assert!(gives_up(&gone, me, &name, stopping), "deleted");
    }
}

#[test]
fn one_that_began_to_listen_only_just_takes_the_word_of_others() {
    let name: VipName = "web".parse().unwrap();
    let since = Mono::from_millis(1_000);
    let says = |what: Hearing, at| NodeHealth {
        last_heard: Some(Mono::from_millis(at)),
        report: Some(NodeReport {
            vrrp: [(name.clone(), what)].into(),
            ..NodeReport::default()
        }),
        well_since: None,
    };
    let outranked = || Hearing::Outranked("another".to_owned());
    let free = |own: Option<&Hearing>, others: Vec<NodeHealth>| {
        let health = (1..).map(NodeId).zip(others).collect();
        is_free(own, &name, NodeId(1), &health, since)
    };
    let unsure = Some(&Hearing::Unsure);
    let me = || says(Hearing::Clear, 2_000);
    let clear = || says(Hearing::Clear, 2_000);
    assert!(!free(unsure, vec![me()]), "its own word is old");
    assert!(free(unsure, vec![me(), clear()]));
    assert!(
        !free(unsure, vec![me(), says(Hearing::Clear, 999)]),
        "silent"
    );
    assert!(!free(unsure, vec![me(), says(Hearing::Unsure, 2_000)]));
    let torn = vec![me(), clear(), says(outranked(), 2_000)];
    assert!(!free(unsure, torn.clone()));
    assert!(free(Some(&Hearing::Clear), torn));
    assert!(!free(Some(&outranked()), vec![me(), clear()]));
    assert!(
        !free(None, vec![me(), clear()]),
        "it could not speak for it"
    );
}
