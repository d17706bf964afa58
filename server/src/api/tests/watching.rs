//! Watching through several nodes.

use buoy_core::NodeId;
use buoy_core::spec::MAX_VIPS;
use buoy_core::state::{Command, Entry};
use buoy_proto::v1::ownership_client::OwnershipClient;
use buoy_proto::v1::watch_response::Event;
use buoy_proto::v1::{
    Consistency, DeleteVipRequest, DrainRequest, PutVipRequest, WatchRequest, WatchResponse,
};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use super::harness::{Cluster, SOON, vip};

fn request(after: Option<u64>, vips: &[&str]) -> WatchRequest {
    WatchRequest {
        after_revision: after,
        vips: vips.iter().map(|v| (*v).to_owned()).collect(),
        consistency: Consistency::Linearizable.into(),
        history_id: None,
    }
}

async fn next(stream: &mut Streaming<WatchResponse>) -> Event {
    let message = tokio::time::timeout(SOON, stream.message())
        .await
        .expect("a message in time");
    message.unwrap().expect("no end").event.unwrap()
}

async fn next_change(stream: &mut Streaming<WatchResponse>) -> buoy_proto::v1::Change {
    loop {
        match next(stream).await {
            Event::Change(change) => return change,
            Event::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_goes_on_at_another_node_and_misses_nothing() {
    let cluster = Cluster::start(3).await;
    cluster.bootstrap().await;
    let mut client = cluster.cluster(NodeId(1)).await;
    client
        .put_vip(PutVipRequest {
            vip: Some(vip("a", 1)),
        })
        .await
        .unwrap();
    let mut first = cluster.ownership(NodeId(1)).await;
    let mut first = first.watch(request(None, &[])).await.unwrap().into_inner();
    let Event::Snapshot(snapshot) = next(&mut first).await else {
        panic!("a watch begins with the state");
    };
    assert!(snapshot.complete && snapshot.vips.len() == 1 && snapshot.vips[0].vip == "a");

    client
        .put_vip(PutVipRequest {
            vip: Some(vip("b", 2)),
        })
        .await
        .unwrap();
    let change = next_change(&mut first).await;
    assert_eq!(
        (change.vip.as_str(), change.revision),
        ("b", snapshot.revision + 1)
    );
    drop(first);

    client
        .delete_vip(DeleteVipRequest { vip: "a".into() })
        .await
        .unwrap();
    client
        .drain(DrainRequest {
            node: "n1".into(),
            reason: String::new(),
        })
        .await
        .unwrap();
    client
        .put_vip(PutVipRequest {
            vip: Some(vip("a", 3)),
        })
        .await
        .unwrap();
    for id in [NodeId(2), NodeId(3)] {
        let mut other = cluster.ownership(id).await;
        let mut all = other
            .watch(request(Some(change.revision), &[]))
            .await
            .unwrap()
            .into_inner();
        let mut seen = Vec::new();
        for _ in 0..3 {
            let change = next_change(&mut all).await;
            seen.push((
                change.revision - snapshot.revision,
                change.vip + &change.node,
            ));
        }
        let expected = [(2, "a"), (3, "n1"), (4, "a")].map(|(r, name)| (r, name.to_owned()));
        assert_eq!(seen, expected);
        let filtered = request(Some(snapshot.revision), &["b"]);
        let mut only_b = other.watch(filtered).await.unwrap().into_inner();
        assert_eq!(next_change(&mut only_b).await.vip, "b");
        let Event::Progress(progress) = next(&mut only_b).await else {
            panic!("the rest did not concern this watcher");
        };
        assert_eq!(progress.revision, snapshot.revision + 4);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pruned_history_means_restart() {
    let cluster = Cluster::start(1).await;
    let mut ownership = cluster.ownership(NodeId(1)).await;
    cluster.leader().await;
    let vips = (0..MAX_VIPS).map(|i| {
        let mut spec = vip(&format!("v{i}"), 0);
        spec.addresses = vec![format!("10.{}.{}.{}", i >> 16, (i >> 8) & 255, i & 255)];
        spec.try_into().unwrap()
    });
    let command = Command::Bootstrap {
        history_id: 7,
        nodes: cluster.specs.clone(),
        vips: vips.collect(),
    };
    let raft = cluster.nodes[&NodeId(1)].raft().clone();
    let done = raft
        .client_write(Entry {
            at_unix_ms: 1,
            command,
        })
        .await
        .unwrap();
    assert_eq!(done.data.rejected, None);
    let mut client = cluster.cluster(NodeId(1)).await;
    client
        .drain(DrainRequest {
            node: "n1".into(),
            reason: String::new(),
        })
        .await
        .unwrap();

    let mut stream = ownership
        .watch(request(Some(0), &[]))
        .await
        .unwrap()
        .into_inner();
    let Event::Restart(restart) = next(&mut stream).await else {
        panic!("expected a restart")
    };
    assert!(
        restart.oldest > 1 && restart.newest > MAX_VIPS as u64,
        "{restart:?}"
    );
    assert!(
        stream.message().await.unwrap().is_none(),
        "the stream ends after a restart"
    );

    let beyond = request(Some(restart.newest + 7), &[]);
    let mut stream = ownership.watch(beyond).await.unwrap().into_inner();
    let Event::Restart(foreign) = next(&mut stream).await else {
        panic!("expected a restart")
    };
    assert!(foreign.reason.contains("another cluster"), "{foreign:?}");

    // The state comes in parts, each VIP once.
    let mut stream = ownership
        .watch(request(None, &[]))
        .await
        .unwrap()
        .into_inner();
    let mut names = std::collections::BTreeSet::new();
    loop {
        let Event::Snapshot(part) = next(&mut stream).await else {
            panic!("expected the state")
        };
        assert_eq!(part.revision, restart.newest);
        for vip in part.vips {
            assert!(names.insert(vip.vip));
        }
        if part.complete {
            break;
        }
    }
    assert_eq!(names.len(), MAX_VIPS);
}

/// The history that a new watch shows, and the revision of its present state.
async fn present(ownership: &mut OwnershipClient<Channel>) -> (u64, u64) {
    let mut stream = ownership.watch(request(None, &[])).await.unwrap();
    let first = stream.get_mut().message().await.unwrap().unwrap();
    let Some(Event::Snapshot(snapshot)) = &first.event else {
        panic!("{first:?}");
    };
    (first.history_id, snapshot.revision)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_of_another_history_means_restart() {
    let cluster = Cluster::start(1).await;
    cluster.bootstrap().await;
    let mut ownership = cluster.ownership(NodeId(1)).await;
    let (history_id, revision) = present(&mut ownership).await;
    assert_ne!(history_id, 0);
    let mut client = cluster.cluster(NodeId(1)).await;
    client
        .put_vip(PutVipRequest {
            vip: Some(vip("a", 1)),
        })
        .await
        .unwrap();
    for consistency in [Consistency::Linearizable, Consistency::Local] {
        let after = |history_id| WatchRequest {
            consistency: consistency.into(),
            history_id: Some(history_id),
            ..request(Some(revision), &[])
        };
        let mut same = ownership.watch(after(history_id)).await.unwrap();
        let message = same.get_mut().message().await.unwrap().unwrap();
        assert_eq!(message.history_id, history_id);
        let Some(Event::Change(change)) = message.event else {
            panic!("{message:?}");
        };
        assert_eq!(change.vip, "a");
        let other = history_id.wrapping_add(1);
        let mut other = ownership.watch(after(other)).await.unwrap().into_inner();
        let Event::Restart(restart) = next(&mut other).await else {
            panic!("expected a restart");
        };
        assert!(restart.reason.contains("another cluster"), "{restart:?}");
        assert!(other.message().await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_does_not_catch_up_says_so() {
    let cluster = Cluster::start(1).await;
    cluster.bootstrap().await;
    let mut ownership = cluster.ownership(NodeId(1)).await;
    let (_, revision) = present(&mut ownership).await;
    let beyond = |more| WatchRequest {
        consistency: Consistency::Local.into(),
        ..request(Some(revision + more), &[])
    };
    let mut reached = ownership.watch(beyond(1)).await.unwrap().into_inner();
    let mut never = ownership.watch(beyond(7)).await.unwrap().into_inner();
    let mut client = cluster.cluster(NodeId(1)).await;
    for n in 1..=2 {
        client
            .put_vip(PutVipRequest {
                vip: Some(vip(&format!("v{n}"), n)),
            })
            .await
            .unwrap();
    }
    assert_eq!(next_change(&mut reached).await.vip, "v2");
    let status = tokio::time::timeout(SOON, never.message())
        .await
        .expect("an end in time")
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("LINEARIZABLE"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_are_bounded_and_refused_politely() {
    let cluster = Cluster::start(1).await;
    cluster.leader().await;
    let mut ownership = cluster.ownership(NodeId(1)).await;
    let mut streams = Vec::new();
    for _ in 0..crate::api::watch::MAX_WATCHERS {
        streams.push(
            ownership
                .watch(request(None, &[]))
                .await
                .unwrap()
                .into_inner(),
        );
    }
    let error = ownership.watch(request(None, &[])).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    // The socket of the same node is no second place to wait.
    let dir = tempfile::tempdir().unwrap();
    let (channel, server) = cluster.unix_socket(NodeId(1), dir.path()).await;
    let mut local = buoy_proto::client::ownership(channel);
    let error = local.watch(request(None, &[])).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    server.abort();

    streams.pop();
    let freed = async {
        while ownership.watch(request(None, &[])).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, freed)
        .await
        .expect("a place is free once a watcher has gone");
}
