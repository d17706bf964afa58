//! Nodes that go away and come back.

use std::time::Duration;

use buoy_core::NodeId;
use buoy_core::state::Command;
use buoy_proto::v1::{Consistency, GetOwnerRequest, PutVipRequest, StatusRequest};
use openraft::async_runtime::WatchReceiver;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::harness::{Cluster, SOON, listen, timing, until, vip};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_after_the_loss_of_the_leader() {
    let mut cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let mut client = cluster.cluster(follower).await;
    client
        .put_vip(PutVipRequest {
            vip: Some(vip("a", 1)),
        })
        .await
        .unwrap();
    cluster.stop_node(leader);
    cluster.noticed(follower, leader).await;
    // One call: it waits for the election.
    client
        .put_vip(PutVipRequest {
            vip: Some(vip("b", 2)),
        })
        .await
        .unwrap();
    let request = GetOwnerRequest {
        vip: "a".into(),
        consistency: Consistency::Linearizable.into(),
    };
    cluster
        .ownership(follower)
        .await
        .get_owner(request)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_calls_fail_with_the_reason() {
    let mut cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let survivor = cluster.follower().await;
    let mut client = cluster.cluster(survivor).await;
    client
        .put_vip(PutVipRequest {
            vip: Some(vip("a", 1)),
        })
        .await
        .unwrap();
    let others: Vec<_> = cluster
        .nodes
        .keys()
        .copied()
        .filter(|id| *id != survivor)
        .collect();
    for id in others {
        cluster.stop_node(id);
        cluster.noticed(survivor, id).await;
    }
    let put = PutVipRequest {
        vip: Some(vip("b", 2)),
    };
    let mut ownership = cluster.ownership(survivor).await;
    let request = |consistency: Consistency| GetOwnerRequest {
        vip: "a".into(),
        consistency: consistency.into(),
    };
    let (write, read) = tokio::join!(
        client.put_vip(put),
        ownership.get_owner(request(Consistency::Linearizable))
    );
    for error in [write.unwrap_err(), read.unwrap_err()] {
        assert_eq!(error.code(), Code::Unavailable, "{error}");
        assert!(
            error.message().contains("not heard by this node: n"),
            "{error}"
        );
    }
    ownership
        .get_owner(request(Consistency::Local))
        .await
        .unwrap();
    let mut status = cluster.cluster(survivor).await;
    let status = status.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(
        status.problems[0].contains("no quorum: 1 of 3"),
        "{:?}",
        status.problems
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_gets_a_snapshot() {
    let mut cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    cluster.stop_node(away);
    let raft = cluster.nodes[&leader].raft().clone();
    let mut last = 0;
    for round in 0..250 {
        let command = Command::Drain {
            node: NodeId(1),
            reason: Some(format!("round {round}")),
        };
        last = cluster.write(leader, command).await.index;
    }
    until("the leader has purged what the other node needs", || {
        raft.metrics()
            .borrow_watched()
            .purged
            .filter(|p| p.index > 100)
    })
    .await;
    cluster.restart_node(away).await;
    let node = &cluster.nodes[&away];
    let mut applied = node.context.reader.subscribe();
    let caught_up = applied.wait_for(|i| *i >= last);
    tokio::time::timeout(SOON, caught_up)
        .await
        .expect("in time")
        .unwrap();
    let snapshot = node.raft().metrics().borrow_watched().snapshot;
    assert!(snapshot.is_some_and(|s| s.index > 100), "{snapshot:?}");
    let same = |id| cluster.nodes[&id].context.reader.read().clone();
    assert_eq!(same(away), same(leader));
}

/// A peer whose connections end at once must not keep the leader busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_follower_is_dialed_at_a_measured_pace() {
    let mut cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let (leader, dead) = (cluster.leader().await, cluster.follower().await);
    let address = cluster.specs.iter().find(|s| s.id == dead).unwrap().address;
    cluster.stop_node(dead);
    cluster.noticed(leader, dead).await;
    let listener = listen(address).await;
    let command = Command::Drain {
        node: NodeId(1),
        reason: Some("something to send".into()),
    };
    cluster.write(leader, command).await;
    let mut dialed = 0;
    let window = Duration::from_secs(1);
    let count = async {
        loop {
            // Closed as soon as it is accepted.
            listener.accept().await.unwrap();
            dialed += 1;
        }
    };
    // The window ends the endless count.
    let _ = tokio::time::timeout(window, count).await;
    let heartbeats = window.as_millis() / timing().raft_heartbeat.as_millis();
    assert!(dialed > 0, "the peer is tried again");
    assert!(
        dialed < 4 * heartbeats,
        "{dialed} connections in {window:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_follows_the_quorum() {
    let mut cluster = Cluster::start(3).await;
    let survivor = cluster.follower().await;
    let address = cluster
        .specs
        .iter()
        .find(|s| s.id == survivor)
        .unwrap()
        .address;
    let channel = buoy_proto::client::connect(&format!("http://{address}"), None, SOON).await;
    let mut health = HealthClient::new(channel.unwrap());
    let service = "buoy.v1.Ownership".to_owned();
    let mut states = health
        .watch(HealthCheckRequest { service })
        .await
        .unwrap()
        .into_inner();
    let next = async |wanted: i32, states: &mut tonic::Streaming<_>| loop {
        let answer: tonic_health::pb::HealthCheckResponse =
            tokio::time::timeout(SOON, states.message())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
        if answer.status == wanted {
            return;
        }
    };
    let (serving, not_serving) = (1, 2);
    next(serving, &mut states).await;
    let others: Vec<_> = cluster
        .nodes
        .keys()
        .copied()
        .filter(|id| *id != survivor)
        .collect();
    for id in others {
        cluster.stop_node(id);
    }
    next(not_serving, &mut states).await;
}
