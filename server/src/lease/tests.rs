//! Three lease threads on loopback, over real QUIC, with a gate that only counts.

mod alone;
mod watchdogs;

use std::collections::BTreeMap;
use std::time::Instant;

use super::stubborn::Stubborn;
use super::*;
use crate::tls::Tls;
use buoy_core::effects::Again;
use buoy_core::lease::holder::{HolderView, Wanted};
use buoy_core::spec::timing::Profile;
use buoy_core::{ConfigId, Epoch, Incarnation, Membership, VipName};
use buoy_fence::gate::GateKind;

const LIMIT: Duration = Duration::from_secs(10);

struct Node {
    input: UnboundedSender<LeaseIn>,
    output: UnboundedReceiver<LeaseOut>,
    shared: Arc<LeaseShared>,
    view: Arc<ArcSwap<LogView>>,
    view_changed: watch::Sender<u64>,
}

fn membership(n: u64) -> Membership {
    let voters = (1..=n).map(NodeId).collect();
    Membership {
        id: ConfigId::default(),
        halves: vec![voters],
    }
}

fn free_addresses(n: u64) -> Vec<SocketAddr> {
    let sockets: Vec<_> = (0..n)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    sockets.iter().map(|s| s.local_addr().unwrap()).collect()
}

fn spawn(id: u64, addresses: &[SocketAddr]) -> Node {
    spawn_with(id, addresses, Stubborn::new())
}

fn spawn_with(id: u64, addresses: &[SocketAddr], gate: Stubborn) -> Node {
    let tls = Tls::insecure("test").unwrap();
    let peers = (1..=addresses.len() as u64)
        .filter(|p| *p != id)
        .map(|p| {
            (
                NodeId(p),
                format!("n{p}").parse().unwrap(),
                addresses[p as usize - 1],
            )
        })
        .collect();
    let shared = Arc::new(LeaseShared::new((1..=addresses.len() as u64).map(NodeId)));
    let first = LogView {
        membership: membership(addresses.len() as u64),
        ..LogView::default()
    };
    let view = Arc::new(ArcSwap::from_pointee(first));
    let view_changed = watch::Sender::new(0);
    let thread = LeaseThread::spawn(Setup {
        session: Session {
            node: NodeId(id),
            incarnation: Incarnation(id * 7),
        },
        listen: addresses[id as usize - 1],
        peers,
        timing: Timing::for_profile(Profile::Lan),
        max_promise: Duration::ZERO,
        log_view: view.clone(),
        log_view_changed: view_changed.subscribe(),
        gate: Box::new(gate),
        quic_server: tls.quic_server_config(),
        quic_client: tls.quic_client_config(),
        insecure: true,
        managed: BTreeSet::new(),
        shared: shared.clone(),
    })
    .unwrap();
    let (input, output, _guard) = thread.split();
    Node {
        input,
        output,
        shared,
        view,
        view_changed,
    }
}

impl Node {
    /// The disk never refuses here.
    async fn next(&mut self) -> LeaseOut {
        loop {
            let out = tokio::time::timeout(LIMIT, self.output.recv())
                .await
                .unwrap()
                .unwrap();
            match out {
                LeaseOut::RaiseMax(length) => {
                    self.input.send(LeaseIn::MaxRaised(length)).unwrap();
                }
                LeaseOut::PeerRestarted(_) => {}
                out => return out,
            }
        }
    }
}

/// Appends and applies an assignment on every node.
fn assign(nodes: &[Node], vip: &VipName, to: u64, epoch: u64) {
    let address: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    for (i, node) in nodes.iter().enumerate() {
        let mut view = LogView::clone(&node.view.load());
        view.assigned.insert(address, (NodeId(to), Epoch(epoch)));
        node.view.store(Arc::new(view));
        node.view_changed.send_modify(|n| *n += 1);
        let wanted = Wanted {
            vip: vip.clone(),
            epoch: Epoch(epoch),
            addresses: vec![address],
        };
        let mine = i as u64 + 1 == to;
        let view = HolderView {
            membership: membership(nodes.len() as u64),
            assignments: mine.then_some(wanted).into_iter().collect(),
        };
        node.input.send(LeaseIn::Applied(view)).unwrap();
    }
}

async fn pump_voters(nodes: &mut [Node], but: usize) {
    for (i, node) in nodes.iter_mut().enumerate() {
        while i != but
            && let Ok(out) = node.output.try_recv()
        {
            if let LeaseOut::RaiseMax(length) = out {
                node.input.send(LeaseIn::MaxRaised(length)).unwrap();
            }
        }
    }
}

async fn expect_up(nodes: &mut [Node], who: usize) {
    let end = Instant::now() + LIMIT;
    loop {
        pump_voters(nodes, who).await;
        let next = tokio::time::timeout(Duration::from_millis(20), nodes[who].next()).await;
        if let Ok(out) = next {
            assert!(matches!(out, LeaseOut::Up { .. }), "{out:?}");
            return;
        }
        assert!(Instant::now() < end, "node {} is not up", who + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vip_comes_up_moves_and_every_node_is_heard() {
    let addresses = free_addresses(3);
    let mut nodes: Vec<Node> = (1..=3).map(|id| spawn(id, &addresses)).collect();
    let vip: VipName = "web".parse().unwrap();
    for node in &nodes {
        // As before the first entry is applied; the first membership then has the same id, (0, 0).
        node.input
            .send(LeaseIn::Applied(HolderView::default()))
            .unwrap();
    }
    assign(&nodes, &vip, 1, 5);
    expect_up(&mut nodes, 0).await;
    let mut changed = nodes[0].shared.changed.subscribe();
    let shown = |node: &Node| {
        node.shared
            .held
            .load()
            .get(&(vip.clone(), Epoch(5)))
            .map(|h| h.phase)
    };
    while shown(&nodes[0]) != Some(Phase::Active) {
        tokio::time::timeout(LIMIT, changed.changed())
            .await
            .unwrap()
            .unwrap();
    }

    assign(&nodes, &vip, 2, 6);
    let down = nodes[0].next().await;
    assert!(
        matches!(
            &down,
            LeaseOut::Down {
                epoch: Epoch(5),
                ..
            }
        ),
        "{down:?}"
    );
    // Not before the old holder has released, however long that takes.
    assert!(nodes[1].output.try_recv().is_err());
    nodes[0]
        .input
        .send(LeaseIn::Lowered {
            vip: vip.clone(),
            epoch: Epoch(5),
            kept: vec![],
        })
        .unwrap();
    expect_up(&mut nodes, 1).await;

    for node in &nodes {
        for peer in 1..=3 {
            let end = Instant::now() + LIMIT;
            while node.shared.heard(NodeId(peer)).is_none() {
                assert!(Instant::now() < end, "node {peer} was not heard");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
    // Two of three were enough; the third follows.
    let end = Instant::now() + LIMIT;
    loop {
        let record = promises(&nodes[2].input).await.unwrap();
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        if let Some((session, epoch, _)) = record.live.get(&address)
            && (session.node, *epoch) == (NodeId(2), Epoch(6))
        {
            return;
        }
        assert!(Instant::now() < end, "no promise to node 2: {record:?}");
        pump_voters(&mut nodes, 1).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn what_a_lost_disk_may_have_promised_does_not_depend_on_the_own_gate() {
    let timing = Timing::for_profile(Profile::Lan);
    let named = timing.lease + NFT_MARGIN;
    let longest = longest_promise_to_any(&timing);
    assert_eq!(longest, timing.allowance().voter_length(named));
    assert!(longest > longest_promise(&timing, GateKind::Ebpf));
}
