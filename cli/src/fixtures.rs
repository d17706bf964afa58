//! Messages as a small cluster would send them, for tests of the rendering.

use buoy_proto::v1::{
    Lateness, LeaseState, NodeRef, NodeStatus, Placement, Quorum, Role, Settings, StatusResponse,
    Vip, VipOwnership, VipSpec,
};

pub fn node_ref(id: u64) -> NodeRef {
    NodeRef {
        name: format!("n{id}"),
        id,
    }
}

pub fn node(id: u64, role: Role, active: &[&str]) -> NodeStatus {
    NodeStatus {
        node: Some(node_ref(id)),
        address: format!("192.168.192.1{id}:7400"),
        role: role.into(),
        voter: true,
        leader: id == 2,
        heard_ms_ago: Some(id * 10),
        alive: true,
        version: "0.1.0".into(),
        active: active.iter().map(|a| (*a).to_owned()).collect(),
        ..NodeStatus::default()
    }
}

pub fn vip(name: &str, ip: &str, owner: u64, epoch: u64) -> Vip {
    let addresses = vec![format!("{ip}/24")];
    Vip {
        spec: Some(VipSpec {
            name: name.into(),
            addresses: addresses.clone(),
            interface: "eth0".into(),
            placement: Some(Placement {
                priority: [(format!("n{owner}"), 150)].into(),
                ..Placement::default()
            }),
            ..VipSpec::default()
        }),
        ownership: Some(VipOwnership {
            vip: name.into(),
            addresses,
            owner: Some(node_ref(owner)),
            epoch,
            since_unix_ms: 1_700_000_000_000,
            lease_state: LeaseState::Held.into(),
            lease_remaining_ms: 251,
        }),
        ..Vip::default()
    }
}

pub fn status() -> StatusResponse {
    StatusResponse {
        cluster: "prod".into(),
        answered_by: Some(node_ref(1)),
        version: "0.1.0".into(),
        quorum: Some(Quorum {
            heard: 3,
            voters: 3,
            needed: 2,
            ok: true,
        }),
        leader: Some(node_ref(2)),
        term: 4,
        applied: 90,
        revision: 12,
        bootstrapped: true,
        settings: Some(Settings::default()),
        lateness: Some(Lateness {
            wakes: 5_000,
            mean_us: 60,
            max_us: 12_300,
            max_last_minute_us: 440,
        }),
        nodes: vec![
            node(1, Role::Member, &["web-a"]),
            node(2, Role::Member, &["web-b"]),
            node(3, Role::Witness, &[]),
        ],
        vips: vec![
            vip("web-a", "192.168.192.13", 1, 7),
            vip("web-b", "192.168.192.14", 2, 9),
        ],
        ..StatusResponse::default()
    }
}
