//! The peers' own service: who may call it, and what it does with nonsense.

use std::path::Path;
use std::time::Duration;

use buoy_core::health::NodeReport;
use buoy_core::{NodeId, NodeName};
use buoy_proto::PEER_PROTOCOL;
use buoy_proto::client::ClientTls;
use buoy_proto::peer::peer_client::PeerClient;
use buoy_proto::peer::{Envelope, SnapshotChunk};
use buoy_proto::v1::{PutVipRequest, StatusRequest};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::Code;

use super::harness::{Cluster, SOON, timing, vip};
use crate::peer::{MAX_PEER_MESSAGE, PeerPool, Purpose};
use crate::tls::Tls;

const LIMIT: Duration = Duration::from_secs(5);

fn report(node: u64) -> NodeReport {
    NodeReport {
        node: NodeId(node),
        rev: 1,
        ..NodeReport::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_somebody_else_are_refused() {
    let cluster = Cluster::start(2).await;
    let plain = || Tls::insecure("test").unwrap();
    let pool =
        |name: &str, me: u64| PeerPool::new(name, NodeId(me), &cluster.specs, plain(), &timing());
    let send = async |pool: PeerPool, to: u64, about: u64| {
        pool.report(NodeId(to), &report(about), "1.2.3", LIMIT)
            .await
    };

    send(pool("test", 1), 2, 1).await.unwrap();
    let node = &cluster.nodes[&NodeId(2)];
    assert_eq!(
        node.reports.lock().unwrap().get(&NodeId(1)),
        Some(&report(1))
    );
    assert_eq!(node.context.pool.version(NodeId(1)), "1.2.3");

    let mut mixed_up = cluster.specs.clone();
    let (a, b) = (mixed_up[0].address, mixed_up[1].address);
    (mixed_up[0].address, mixed_up[1].address) = (b, a);
    let mixed_up = PeerPool::new("test", NodeId(1), &mixed_up, plain(), &timing());
    let mut renamed = cluster.specs.clone();
    renamed[1].name = "x2".parse().unwrap();
    let renamed = PeerPool::new("test", NodeId(1), &renamed, plain(), &timing());
    for (sent, hint) in [
        (send(pool("other", 1), 2, 1).await, "\"other\""),
        (
            send(renamed, 2, 1).await,
            "only this node lists 2=n2, only the caller lists 2=x2",
        ),
        (send(mixed_up, 2, 1).await, "wanted node 2"),
        (send(pool("test", 1), 2, 2).await, "about node 2"),
        (
            send(pool("test", 1), 9, 1).await,
            "node 9 is in no configuration",
        ),
    ] {
        let error = sent.unwrap_err();
        let refused = matches!(
            error.code(),
            Code::FailedPrecondition | Code::InvalidArgument
        );
        assert!(refused && error.message().contains(hint), "{error}");
    }
    let unmarked = format!("http://{}", cluster.specs[0].address);
    let channel = buoy_proto::client::connect(&unmarked, None, SOON)
        .await
        .unwrap();
    let error = PeerClient::new(channel)
        .vote(Envelope::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_refused_and_raft_goes_on() {
    let cluster = Cluster::start(2).await;
    let pool = cluster.pool(NodeId(2));
    let mut client = pool.client(NodeId(1), Purpose::Raft).unwrap();
    let nonsense = |protocol| Envelope {
        protocol,
        payload: vec![0xff; 100].into(),
    };
    let errors = [
        client.append(nonsense(PEER_PROTOCOL)).await.unwrap_err(),
        client.vote(nonsense(PEER_PROTOCOL)).await.unwrap_err(),
        client.pre_vote(nonsense(PEER_PROTOCOL)).await.unwrap_err(),
        client
            .transfer_leader(nonsense(PEER_PROTOCOL))
            .await
            .unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    let error = client.vote(nonsense(99)).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    let requests = futures::stream::iter([nonsense(PEER_PROTOCOL)]);
    let mut answers = client.append_stream(requests).await.unwrap().into_inner();
    let error = answers.message().await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");

    // What is too large to be read is told as well.
    let too_large = Envelope {
        protocol: PEER_PROTOCOL,
        payload: vec![0; MAX_PEER_MESSAGE + 1].into(),
    };
    let requests = futures::stream::iter([too_large]);
    let mut careless = client.max_encoding_message_size(usize::MAX);
    let mut answers = careless.append_stream(requests).await.unwrap().into_inner();
    let error = answers.message().await.unwrap_err();
    assert_eq!(error.code(), Code::OutOfRange, "{error}");

    cluster.bootstrap().await;
    let put = PutVipRequest {
        vip: Some(vip("web", 13)),
    };
    cluster.cluster(NodeId(1)).await.put_vip(put).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_snapshot_is_received_at_a_time() {
    let cluster = Cluster::start(2).await;
    let pool = cluster.pool(NodeId(2));
    let client = pool.client(NodeId(1), Purpose::Raft).unwrap();
    let code_of_another = async || {
        let chunks = futures::stream::iter([SnapshotChunk::default()]);
        client.clone().snapshot(chunks).await.unwrap_err().code()
    };
    let until = async |wanted: Code| {
        let seen = async {
            while code_of_another().await != wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, seen).await.is_ok()
    };
    let mut slow = client.clone();
    // A look may be in its way too: it asks until it is the one that is received.
    let first = tokio::spawn(async move {
        while slow.snapshot(futures::stream::pending()).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    assert!(
        until(Code::ResourceExhausted).await,
        "the first is under way"
    );
    first.abort();
    // Refused for what it is, and no longer for the other one.
    assert!(until(Code::FailedPrecondition).await, "the first is gone");
}

fn issue(dir: &Path, authority: &CertifiedIssuer<'static, KeyPair>, name: &str) {
    let params = CertificateParams::new(vec![name.to_owned(), "localhost".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, authority).unwrap();
    std::fs::write(dir.join(format!("{name}.pem")), cert.pem()).unwrap();
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

fn load(dir: &Path, name: &NodeName) -> Tls {
    let file = |end: &str| dir.join(format!("{name}{end}"));
    Tls::load(&dir.join("ca.pem"), &file(".pem"), &file(".key"), name).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_only_certified_callers_get_through() {
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(dir.path().join("ca.pem"), authority.pem()).unwrap();
    for name in ["n1", "n2", "n3", "operator"] {
        issue(dir.path(), &authority, name);
    }
    let mut cluster = Cluster::prepare(3, |spec| load(dir.path(), &spec.name)).await;
    cluster.start_all().await;
    cluster.bootstrap().await;
    let address = cluster.specs[0].address;

    let read = |file: &str| std::fs::read(dir.path().join(file)).unwrap();
    let tls = ClientTls {
        ca: read("ca.pem"),
        cert: read("operator.pem"),
        key: read("operator.key"),
        server_name: Some("n1".into()),
    };
    // Who says nothing is not waited for.
    let mut silent = TcpStream::connect(address).await.unwrap();
    let target = format!("https://{address}");
    let channel = buoy_proto::client::connect(&target, Some(&tls), SOON)
        .await
        .unwrap();
    let put = PutVipRequest {
        vip: Some(vip("web", 13)),
    };
    buoy_proto::client::cluster(channel.clone())
        .put_vip(put)
        .await
        .unwrap();

    // An operator's certificate is good for the API and not for the peers' service.
    let mut specs = cluster.specs.clone();
    specs[1].name = "operator".parse().unwrap();
    let operator = load(dir.path(), &specs[1].name);
    let intruder = PeerPool::new("test", NodeId(2), &specs, operator, &timing());
    let error = intruder
        .report(NodeId(1), &report(2), "", LIMIT)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "{error}");

    let plain = buoy_proto::client::connect(&format!("http://{address}"), None, LIMIT).await;
    if let Ok(channel) = plain {
        buoy_proto::client::cluster(channel)
            .status(StatusRequest {})
            .await
            .unwrap_err();
    }
    let end = tokio::time::timeout(SOON, silent.read(&mut [0; 1])).await;
    assert_eq!(end.expect("an end in time").unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_unix_socket_serves_operators_and_no_peers() {
    let cluster = Cluster::start(1).await;
    cluster.bootstrap().await;
    let dir = tempfile::tempdir().unwrap();
    let (channel, server) = cluster.unix_socket(NodeId(1), dir.path()).await;
    let status = buoy_proto::client::cluster(channel.clone())
        .status(StatusRequest {})
        .await;
    assert_eq!(status.unwrap().into_inner().cluster, "test");
    let error = PeerClient::new(channel)
        .vote(Envelope::default())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented, "{error}");
    server.abort();
}
