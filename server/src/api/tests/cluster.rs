//! Forming, writing, reading, moving.

use std::time::{Duration, Instant};

use buoy_core::NodeId;
use buoy_core::state::Command;
use buoy_proto::v1::move_vip_request::Target;
use buoy_proto::v1::{
    Consistency, DeleteVipRequest, DrainRequest, ExplainRequest, GetOwnerRequest, HistoryRequest,
    LeaseState, ListVipsRequest, MoveVipRequest, PutVipRequest, Role, StatusRequest,
    UndrainRequest,
};
use futures::stream::{FuturesUnordered, StreamExt};
use tonic::Code;

use super::harness::{Cluster, SOON, until, vip};

fn owner_request(vip: &str, consistency: Consistency) -> GetOwnerRequest {
    GetOwnerRequest {
        vip: vip.into(),
        consistency: consistency.into(),
    }
}

fn move_request(vip: &str, node: &str) -> MoveVipRequest {
    MoveVipRequest {
        vip: vip.into(),
        target: Some(Target::Node(node.into())),
        force: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_forms_and_every_node_serves() {
    let cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let follower = cluster.follower().await;
    let put = PutVipRequest {
        vip: Some(vip("web", 13)),
    };
    cluster.cluster(follower).await.put_vip(put).await.unwrap();
    for id in cluster.nodes.keys() {
        let mut ownership = cluster.ownership(*id).await;
        for name in ["web", "192.0.2.13"] {
            let request = owner_request(name, Consistency::Linearizable);
            let answer = ownership.get_owner(request).await.unwrap().into_inner();
            let owned = answer.ownership.unwrap();
            assert_eq!((owned.vip.as_str(), owned.owner), ("web", None));
            assert_eq!(owned.addresses, ["192.0.2.13/32"]);
            assert_eq!(answer.answered_by.unwrap().id, id.0);
        }
        let vips = ownership
            .list_vips(ListVipsRequest::default())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(vips.vips.len(), 1);
        assert!(
            vips.vips[0].problem.contains("nobody owns it"),
            "{}",
            vips.vips[0].problem
        );

        let status = cluster
            .cluster(*id)
            .await
            .status(StatusRequest {})
            .await
            .unwrap()
            .into_inner();
        let quorum = status.quorum.unwrap();
        assert_eq!(
            (quorum.heard, quorum.voters, quorum.needed, quorum.ok),
            (3, 3, 2, true)
        );
        assert_eq!(status.leader.unwrap().id, cluster.leader().await.0);
        let roles: Vec<Role> = status.nodes.iter().map(|n| n.role()).collect();
        assert_eq!(roles, [Role::Member, Role::Member, Role::Witness]);
        assert!(status.insecure);
        let late = status.lateness.unwrap();
        assert_eq!(
            [
                late.wakes,
                late.mean_us,
                late.max_us,
                late.max_last_minute_us
            ],
            [40, 60, 12_300, 400]
        );
        let about_tls = |p: &&String| p.contains("TLS") || p.contains("[tls]");
        assert_eq!(
            status.problems.iter().find(about_tls),
            None,
            "a choice is no problem: it is one of the warnings that each node reports"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moves_drains_and_lease_reads() {
    let cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let follower = cluster.follower().await;
    let mut client = cluster.cluster(follower).await;
    client
        .put_vip(PutVipRequest {
            vip: Some(vip("web", 13)),
        })
        .await
        .unwrap();

    let moved = client
        .move_vip(move_request("192.0.2.13", "n1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((moved.from, moved.to.unwrap().name.as_str()), (None, "n1"));
    assert!(moved.active && moved.epoch > 0 && moved.total_us >= moved.decided_us);
    let second = client
        .move_vip(move_request("web", "2"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(second.from.unwrap().name, "n1");
    assert_eq!(second.to.unwrap().name, "n2");
    assert!(second.epoch > moved.epoch && second.active);

    // Every node can name the owner, confirmed by the owner itself.
    for id in cluster.nodes.keys() {
        let mut ownership = cluster.ownership(*id).await;
        let request = owner_request("web", Consistency::Lease);
        let answer = ownership.get_owner(request).await.unwrap().into_inner();
        assert_eq!(answer.answered_by.unwrap().name, "n2");
        let owned = answer.ownership.unwrap();
        assert_eq!(
            (owned.epoch, owned.lease_state()),
            (second.epoch, LeaseState::Held)
        );
        assert!(owned.lease_remaining_ms > 0);
    }
    *cluster.nodes[&NodeId(2)].lease.refused.lock().unwrap() = true;
    for id in cluster.nodes.keys() {
        let mut ownership = cluster.ownership(*id).await;
        let request = owner_request("web", Consistency::Lease);
        let error = ownership.get_owner(request).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
        assert!(error.message().contains("does not hold it"), "{error}");
    }
    *cluster.nodes[&NodeId(2)].lease.refused.lock().unwrap() = false;

    for (request, code, hint) in [
        (
            move_request("web", "n3"),
            Code::FailedPrecondition,
            "witness",
        ),
        (move_request("web", "n9"), Code::NotFound, "n1, n2, n3"),
        (move_request("mail", "n1"), Code::NotFound, "mail"),
        (
            MoveVipRequest {
                target: None,
                ..move_request("web", "")
            },
            Code::InvalidArgument,
            "auto",
        ),
    ] {
        let error = client.move_vip(request).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(hint), "{error}");
    }

    let auto = MoveVipRequest {
        target: Some(Target::Auto(true)),
        ..move_request("web", "")
    };
    let freed = client.move_vip(auto).await.unwrap().into_inner();
    assert_eq!(
        freed.to.unwrap().name,
        "n2",
        "giving it back does not move it by itself"
    );
    let list = ListVipsRequest::default();
    let vips = cluster
        .ownership(follower)
        .await
        .list_vips(list)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(vips.vips[0].pinned, None);

    let drain = DrainRequest {
        node: "n1".into(),
        reason: "new memory".into(),
    };
    client.drain(drain).await.unwrap();
    let error = client
        .move_vip(move_request("web", "n1"))
        .await
        .unwrap_err();
    assert!(error.message().contains("new memory"), "{error}");
    let explain = ExplainRequest { vip: "web".into() };
    let explained = client.explain(explain).await.unwrap().into_inner();
    let reasons = |name: &str| {
        let of = |c: &&buoy_proto::v1::Candidate| c.node.as_ref().is_some_and(|n| n.name == name);
        explained
            .candidates
            .iter()
            .find(of)
            .unwrap()
            .reasons
            .join("; ")
    };
    assert!(reasons("n1").contains("new memory"), "{}", reasons("n1"));
    client
        .undrain(UndrainRequest { node: "n1".into() })
        .await
        .unwrap();
    client.move_vip(move_request("web", "n1")).await.unwrap();

    let history = HistoryRequest {
        vip: "web".into(),
        limit: 2,
    };
    let history = client.history(history).await.unwrap().into_inner();
    assert_eq!(history.events.len(), 2);
    assert_eq!(history.events[1].to, "n1");
    assert!(history.events[0].revision < history.events[1].revision);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_why() {
    let cluster = Cluster::start(1).await;
    cluster.bootstrap().await;
    let mut client = cluster.cluster(NodeId(1)).await;
    client
        .put_vip(PutVipRequest {
            vip: Some(vip("web", 13)),
        })
        .await
        .unwrap();
    let mut bad = vip("mail", 25);
    bad.addresses = vec!["192.0.2.256".into()];
    for (spec, code, hint) in [
        (bad, Code::InvalidArgument, "vip.addresses[0]"),
        (vip("mail", 13), Code::FailedPrecondition, "web"),
    ] {
        let error = client
            .put_vip(PutVipRequest { vip: Some(spec) })
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(hint), "{error}");
    }
    let error = client
        .delete_vip(DeleteVipRequest { vip: "mail".into() })
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
    client
        .delete_vip(DeleteVipRequest { vip: "web".into() })
        .await
        .unwrap();
    let request = owner_request("web", Consistency::Local);
    let error = cluster
        .ownership(NodeId(1))
        .await
        .get_owner(request)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound, "{error}");
}

/// The leader must tell its followers of a commit at once: a new holder may claim only then. So with
/// heartbeats off, the followers must learn of it all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_learn_of_a_commit_without_a_heartbeat() {
    let cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let leader = cluster.leader().await;
    for node in cluster.nodes.values() {
        node.raft().runtime_config().elect(false);
    }
    let heartbeats = |on| cluster.nodes[&leader].raft().runtime_config().heartbeat(on);
    let mut first = Vec::new();
    for round in 0..20 {
        heartbeats(false);
        let reason = Some(format!("round {round}"));
        let done = cluster
            .write(
                leader,
                Command::Drain {
                    node: NodeId(1),
                    reason,
                },
            )
            .await;
        let committed = Instant::now();
        let followers = cluster.nodes.iter().filter(|(id, _)| **id != leader);
        let applied: FuturesUnordered<_> = followers
            .map(|(_, node)| async {
                let mut applied = node.context.reader.subscribe();
                applied.wait_for(|i| *i >= done.index).await.unwrap();
                committed.elapsed()
            })
            .collect();
        let delays: Vec<Duration> = tokio::time::timeout(SOON, applied.collect())
            .await
            .expect("without a heartbeat");
        first.push(delays[0]);
        heartbeats(true);
    }
    first.sort_unstable();
    println!("commit at the leader until the first follower applied it: {first:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_can_be_handed_over() {
    let cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let (old, new) = (cluster.leader().await, cluster.follower().await);
    let begun = Instant::now();
    cluster.nodes[&old]
        .raft()
        .trigger()
        .transfer_leader(new.0)
        .await
        .unwrap();
    until("the other node leads", || {
        cluster.nodes[&new].raft().is_leader().then_some(())
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(cluster.leader().await, new);
}
