//! Planted bugs of the fence: the very trials that are green without them must see them.

use buoy_fence::fault::{Flow, Plant, place};
use buoy_fence::gate::GateKind;

use super::bed::{Bed, places};
use super::stopped::stop_at;

/// The place at which a bug shows.
fn shows_at(plant: Plant) -> usize {
    match plant {
        Plant::NeverArmed => place("arm.after"),
        Plant::RelativeDeadline => place("answer.counted"),
        Plant::ReleaseBeforeShut => place("down.decided"),
    }
}

fn is_seen(plant: Plant) {
    for gate in [GateKind::Ebpf, GateKind::Nft] {
        let Some(bed) = Bed::new(gate, Some(plant)) else {
            return;
        };
        let point = &buoy_fence::fault::POINTS[shows_at(plant)];
        let mut all = [Flow::Renewal, Flow::Down]
            .into_iter()
            .flat_map(|flow| places(flow, gate, "n1"));
        let at = all.find(|at| at.point == point).unwrap();
        let wrongs = stop_at(&bed, "n1", at);
        println!("  {gate}, {}: {wrongs:#?}", plant.name());
        assert!(
            wrongs
                .iter()
                .any(|wrong| wrong.contains("two nodes at once")),
            "{gate}: nobody saw the bug {}: {wrongs:#?}",
            plant.name()
        );
    }
}

#[test]
fn a_gate_that_is_never_armed_is_seen() {
    is_seen(Plant::NeverArmed);
}

#[test]
fn a_deadline_that_counts_from_the_answer_is_seen() {
    is_seen(Plant::RelativeDeadline);
}

#[test]
fn a_release_before_the_gate_is_shut_is_seen() {
    is_seen(Plant::ReleaseBeforeShut);
}
