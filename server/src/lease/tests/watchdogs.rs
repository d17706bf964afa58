//! What the watchdogs get of a lease thread that runs, of one that hangs, and of one without a quorum.

use super::*;
use crate::watchdog::device::fake::Fake;
use crate::watchdog::judge::Doubt;
use crate::watchdog::{self, HardwareFeeder, Judge};

/// Waits until something holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchdogs_starve_with_a_hung_thread_and_are_fed_without_a_quorum() {
    let addresses = free_addresses(3);
    let gate = Stubborn::new();
    let deadlines = gate.deadlines();
    let mut nodes = vec![spawn_with(1, &addresses, gate)];
    nodes.extend((2..=3).map(|id| spawn(id, &addresses)));
    let vip: VipName = "web".parse().unwrap();
    let shared = nodes[0].shared.clone();
    let looks = watchdog::look(shared.clone(), nodes[0].input.clone());
    let looks = tokio::spawn(looks);
    let judge = Arc::new(Judge::new(shared.clone(), deadlines));
    let fake = Fake::new();
    let feeder = HardwareFeeder::start(fake.start(false).unwrap(), judge.clone()).unwrap();
    feeder.guard();
    assign(&nodes, &vip, 1, 5);
    expect_up(&mut nodes, 0).await;
    let phase = |epoch| {
        let held = shared.held.load();
        held.get(&("web".parse().unwrap(), Epoch(epoch)))
            .map(|h| h.phase)
    };
    until("the VIP is up", || phase(5) == Some(Phase::Active)).await;
    let before = fake.meals();
    until("it is fed while it holds", || fake.meals() > before + 1).await;
    assert!(!judge.is_down());

    // Hung with a VIP: it is on the page as it was.
    let (release, released) = std::sync::mpsc::channel();
    let hang = GateJob(Box::new(move |_| released.recv().unwrap()));
    nodes[0].input.send(LeaseIn::Gate(hang)).unwrap();
    until("its silence is noticed", || {
        matches!(judge.may_feed(), Err(Doubt::NoAnswer(Some(_))))
    })
    .await;
    assert_eq!(phase(5), Some(Phase::Active));
    let before = fake.meals();
    // Twice the longest time between two meals.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(fake.meals() <= before + 1, "it was fed in spite of that");
    assert!(matches!(judge.may_feed(), Err(Doubt::NoAnswer(_))));

    // It goes on: the lease has ended meanwhile. What goes down in good order is no reason to starve.
    release.send(()).unwrap();
    let lower = |node: &Node, epoch| {
        let lowered = LeaseIn::Lowered {
            vip: vip.clone(),
            epoch: Epoch(epoch),
            kept: vec![],
        };
        node.input.send(lowered).unwrap();
    };
    until("it goes down", || phase(5) == Some(Phase::Lowering)).await;
    let before = fake.meals();
    until("it is fed again", || fake.meals() > before).await;
    lower(&nodes[0], 5);
    until("it is down", || phase(5).is_none()).await;
    while nodes[0].output.try_recv().is_ok() {}

    // Without a quorum: down, and fed on.
    assign(&nodes, &vip, 1, 6);
    expect_up(&mut nodes, 0).await;
    nodes.truncate(1);
    until("it goes down", || phase(6) == Some(Phase::Lowering)).await;
    lower(&nodes[0], 6);
    until("it is down", || judge.is_down()).await;
    let before = fake.meals();
    until("it is fed on", || fake.meals() > before + 3).await;
    assert!(
        boottime().since(shared.quorum_answered().unwrap()) > Duration::from_secs(2),
        "there was a quorum"
    );
    drop(feeder);
    assert_eq!(fake.book().written.last(), Some(&b'V'));
    looks.abort();
}
