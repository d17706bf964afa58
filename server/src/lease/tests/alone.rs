//! One lease thread that needs nobody's promise but its own: what it does with its gate, and in which order it says so.

use super::*;

/// A cluster of one: what is assigned is granted at once.
struct Alone {
    node: Node,
    gate: Stubborn,
    assigned: BTreeMap<VipName, (Epoch, IpAddr)>,
    last: u64,
}

impl Alone {
    fn new() -> Alone {
        let gate = Stubborn::new();
        Alone {
            node: spawn_with(1, &free_addresses(1), gate.clone()),
            gate,
            assigned: BTreeMap::new(),
            last: 0,
        }
    }

    fn put(&mut self, vip: &str, last: u8) -> IpAddr {
        self.last += 1;
        let address = IpAddr::from([192, 0, 2, last]);
        self.assigned
            .insert(vip.parse().unwrap(), (Epoch(self.last), address));
        self.apply();
        address
    }

    fn remove(&mut self, vip: &str) {
        self.assigned.remove(&vip.parse().unwrap());
        self.apply();
    }

    fn apply(&self) {
        let mut view = LogView::clone(&self.node.view.load());
        let assigned = self.assigned.values();
        view.assigned = assigned.map(|(e, a)| (*a, (NodeId(1), *e))).collect();
        self.node.view.store(Arc::new(view));
        self.node.view_changed.send_modify(|n| *n += 1);
        let wanted = |(vip, (epoch, address)): (&VipName, &(Epoch, IpAddr))| Wanted {
            vip: vip.clone(),
            epoch: *epoch,
            addresses: vec![*address],
        };
        let view = HolderView {
            membership: membership(1),
            assignments: self.assigned.iter().map(wanted).collect(),
        };
        self.node.input.send(LeaseIn::Applied(view)).unwrap();
    }

    /// What is said next, as a word and the VIP.
    async fn says(&mut self) -> (&'static str, String) {
        match self.node.next().await {
            LeaseOut::Up { vip, .. } => ("up", vip.to_string()),
            LeaseOut::Granted { vip, .. } => ("granted", vip.to_string()),
            LeaseOut::Down { vip, .. } => ("down", vip.to_string()),
            LeaseOut::GaveUp { vip, .. } => ("gave up", vip.to_string()),
            LeaseOut::Unable { vip, .. } => ("unable", vip.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_the_gate_refuses_costs_no_other_vip() {
    let mut alone = Alone::new();
    let good = alone.put("good", 1);
    assert_eq!(alone.says().await, ("up", "good".into()));
    alone.gate.whims().manage = vec![IpAddr::from([192, 0, 2, 2])];
    alone.put("bad", 2);
    let mut said = [alone.says().await, alone.says().await, alone.says().await];
    said.sort();
    assert_eq!(
        said,
        ["down", "gave up", "unable"].map(|word| (word, "bad".to_owned()))
    );
    assert!(alone.gate.whims().slot(good).is_some(), "still open");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_one_address_cannot_be_shut_every_vip_goes_down() {
    let mut alone = Alone::new();
    let stuck = alone.put("stuck", 1);
    assert_eq!(alone.says().await, ("up", "stuck".into()));
    let other = alone.put("other", 2);
    assert_eq!(alone.says().await, ("up", "other".into()));
    alone.gate.whims().shut = vec![stuck];
    alone.remove("stuck");
    let mut said = [alone.says().await, alone.says().await, alone.says().await];
    said.sort();
    let expected = [("down", "other"), ("down", "stuck"), ("gave up", "other")];
    assert_eq!(said, expected.map(|(word, vip)| (word, vip.to_owned())));
    let whims = alone.gate.whims();
    assert_eq!((whims.slot(stuck), whims.slot(other)), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_vip_may_stay_only_behind_a_packet_gate() {
    for (kind, expected) in [
        (GateKind::Ebpf, Again::Logged),
        (GateKind::UserspaceOnly, Again::No),
    ] {
        let mut alone = Alone::new();
        alone.gate.whims().kind = kind;
        let address = alone.put("web", 1);
        assert_eq!(alone.says().await, ("up", "web".into()));
        alone.put("web", 1);
        let mut out = alone.node.next().await;
        // The voter may deny the old epoch before the applied state ends it.
        if matches!(out, LeaseOut::GaveUp { .. }) {
            out = alone.node.next().await;
        }
        let LeaseOut::Down { epoch, again, .. } = out else {
            panic!("{out:?}");
        };
        assert_eq!((epoch, again), (Epoch(1), expected), "{kind:?}");
        assert_eq!(alone.gate.whims().slot(address), None, "the gate is shut");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_opened_is_said_before_its_epoch_has_ended() {
    let addresses = free_addresses(1);
    let mut nodes = vec![spawn(1, &addresses)];
    let vip: VipName = "web".parse().unwrap();
    assign(&nodes, &vip, 1, 5);
    expect_up(&mut nodes, 0).await;
    let nothing = HolderView {
        membership: membership(1),
        assignments: vec![],
    };
    nodes[0].input.send(LeaseIn::Applied(nothing)).unwrap();
    nodes[0].input.send(LeaseIn::Ended(3)).unwrap();
    let down = nodes[0].next().await;
    assert!(matches!(down, LeaseOut::Down { .. }), "{down:?}");
    assert_eq!(nodes[0].next().await, LeaseOut::Ended(3));
}

/// Withholds what `put` will assign next.
fn withhold(alone: &Alone, vip: &str) -> (VipName, Epoch) {
    let key = (vip.parse().unwrap(), Epoch(alone.last + 1));
    let message = LeaseIn::Withhold(vec![key.clone()]);
    alone.node.input.send(message).unwrap();
    key
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_keeps_its_lease_behind_the_shut_gate() {
    let mut alone = Alone::new();
    let (vip, epoch) = withhold(&alone, "web");
    let address = alone.put("web", 1);
    assert_eq!(alone.says().await, ("granted", "web".into()));
    // Others come up beside it.
    let other = alone.put("other", 2);
    assert_eq!(alone.says().await, ("up", "other".into()));
    let shown = |alone: &Alone| {
        let held = alone.node.shared.held.load();
        held.get(&(vip.clone(), epoch)).map(|h| (h.phase, h.slot))
    };
    let rounds = alone.gate.whims().armed.len();
    let end = Instant::now() + LIMIT;
    // Several leases long: 300 ms each, and 75 ms between renewals.
    while alone.gate.whims().armed.len() < rounds + 12 {
        assert!(Instant::now() < end, "nothing is renewed");
        assert_eq!(alone.gate.whims().slot(address), None);
        assert_eq!(shown(&alone), Some((Phase::Claiming, None)));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let shared = &alone.node.shared;
    assert!(!shared.slots.load().contains_key(&address));
    assert!(alone.node.output.try_recv().is_err(), "it is still granted");

    alone
        .node
        .input
        .send(LeaseIn::LetUp { vip, epoch })
        .unwrap();
    assert_eq!(alone.says().await, ("up", "web".into()));
    let whims = alone.gate.whims();
    let slot = whims.slot(address).unwrap();
    assert_eq!(whims.slot(other), Some(slot));
    assert!(whims.inner.deadlines().load(slot) > boottime());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_withheld_and_taken_away_goes_down_without_having_been_up() {
    let mut alone = Alone::new();
    let (vip, epoch) = withhold(&alone, "web");
    let address = alone.put("web", 1);
    assert_eq!(alone.says().await, ("granted", "web".into()));
    alone.remove("web");
    assert_eq!(alone.says().await, ("down", "web".into()));
    // Too late.
    let lowered = LeaseIn::Lowered {
        vip: vip.clone(),
        epoch,
        kept: vec![],
    };
    for message in [LeaseIn::LetUp { vip, epoch }, lowered] {
        alone.node.input.send(message).unwrap();
    }
    // The next epoch is nothing that anybody withholds.
    alone.put("web", 1);
    assert_eq!(alone.says().await, ("up", "web".into()));
    assert!(alone.gate.whims().slot(address).is_some());
}
