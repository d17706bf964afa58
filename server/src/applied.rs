//! Carries the applied state to those who act on it: what is assigned here to the lease thread, which
//! addresses exist to the gate and to the guard of the addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buoy_core::lease::holder::{HolderView, Wanted};
use buoy_core::spec::VipSpec;
use buoy_core::state::State;
use buoy_core::{Epoch, Membership, NodeId, VipName};
use buoy_storage::StateReader;
use tokio::sync::{mpsc::UnboundedSender, watch};

use crate::external::External;
use crate::holds::Holds;
use crate::lease::LeaseIn;
use crate::vrrp::Faces;

/// Declarations of the VIPs that this node was assigned, by epoch: what an epoch *is* never changes. Clones share them.
///
/// An epoch is kept while it is assigned here or carried (up, or on its way up or down). One that ends
/// before it came up is never carried; but the lease thread may have opened it just before it was told. So
/// it goes only once the carrier has seen everything that the lease thread asked for until then.
#[derive(Clone, Default)]
pub struct Specs {
    book: Arc<Mutex<Book>>,
    assigned: Arc<watch::Sender<Arc<Assigned>>>,
}

type Key = (VipName, Epoch);

#[derive(Default)]
struct Book {
    kept: BTreeMap<Key, Kept>,
    /// Number of the last view in which an epoch ended.
    turn: u64,
}

struct Kept {
    spec: Arc<VipSpec>,
    /// The turn with which the epoch ended.
    ended: Option<u64>,
}

/// What the applied state assigns to this node.
pub type Assigned = BTreeMap<VipName, Epoch>;

impl Specs {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the applied state assigns to this node. The lease thread was told before.
    pub fn assigned(&self) -> watch::Receiver<Arc<Assigned>> {
        self.assigned.subscribe()
    }

    /// The lease thread was told of these.
    fn told(&self, view: &HolderView) {
        let assigned = view.assignments.iter().map(|w| (w.vip.clone(), w.epoch));
        self.assigned.send_replace(Arc::new(assigned.collect()));
    }

    /// The declaration under which an epoch was assigned.
    pub fn get(&self, vip: &VipName, epoch: Epoch) -> Option<Arc<VipSpec>> {
        let kept = &self.book().kept;
        kept.get(&(vip.clone(), epoch)).map(|k| k.spec.clone())
    }

    /// Forgets an epoch that went down here.
    pub fn forget(&self, vip: &VipName, epoch: Epoch) {
        self.book().kept.remove(&(vip.clone(), epoch));
    }

    /// Forgets the epochs that had ended by a turn, except those that are carried.
    pub fn forget_ended(&self, turn: u64, carried: impl Fn(&Key) -> bool) {
        self.book()
            .kept
            .retain(|key, kept| kept.ended.is_none_or(|ended| ended > turn) || carried(key));
    }

    fn keep(&self, vip: &VipName, epoch: Epoch, spec: &VipSpec) {
        let key = (vip.clone(), epoch);
        self.book().kept.entry(key).or_insert_with(|| Kept {
            spec: Arc::new(spec.clone()),
            ended: None,
        });
    }

    /// Notes which epochs are assigned no more; the number of the turn, if there are any.
    fn turn(&self, view: &HolderView) -> Option<u64> {
        let assigned: BTreeSet<(&VipName, Epoch)> =
            view.assignments.iter().map(|w| (&w.vip, w.epoch)).collect();
        let mut book = self.book();
        let turn = book.turn + 1;
        let mut any = false;
        for ((vip, epoch), kept) in &mut book.kept {
            if kept.ended.is_none() && !assigned.contains(&(vip, *epoch)) {
                kept.ended = Some(turn);
                any = true;
            }
        }
        if any {
            book.turn = turn;
        }
        any.then_some(turn)
    }
}

/// Addresses of all VIPs of the cluster.
pub type Managed = Arc<BTreeSet<IpAddr>>;

/// Follows the applied state for ever.
pub async fn follow(
    me: NodeId,
    reader: StateReader,
    specs: Specs,
    lease: UnboundedSender<LeaseIn>,
    managed: watch::Sender<Managed>,
    (external, faces, holds): (Option<External>, Faces, Holds),
) {
    let mut applied = reader.subscribe();
    let mut last: Option<HolderView> = None;
    let mut told = false;
    loop {
        applied.borrow_and_update();
        let Some((view, addresses, withheld)) = look(
            me,
            &reader,
            &specs,
            last.as_ref(),
            external.as_ref(),
            &faces,
        ) else {
            // Nothing is known of the cluster yet, or not again yet.
            if applied.changed().await.is_err() {
                return;
            }
            continue;
        };
        // The gate knows an address before a lease can open it.
        if !told || **managed.borrow() != addresses {
            told = true;
            if lease
                .send(LeaseIn::Manage(addresses.iter().copied().collect()))
                .is_err()
            {
                return;
            }
            managed.send_replace(Arc::new(addresses));
        }
        if last.as_ref() != Some(&view) {
            let turn = specs.turn(&view);
            // Ahead of the view, so that none of them is opened before.
            let assigned =
                Assigned::from_iter(view.assignments.iter().map(|w| (w.vip.clone(), w.epoch)));
            let [_, for_routers] = withheld.clone();
            for withheld in withheld {
                if !holds.hold(withheld, |(vip, epoch)| assigned.get(vip) == Some(epoch)) {
                    return;
                }
            }
            // Only now may they be let up: before, it would be forgotten.
            faces.wait(for_routers);
            if lease.send(LeaseIn::Applied(view.clone())).is_err() {
                return;
            }
            specs.told(&view);
            if let Some(turn) = turn
                && lease.send(LeaseIn::Ended(turn)).is_err()
            {
                return;
            }
            last = Some(view);
        }
        if applied.changed().await.is_err() {
            return;
        }
    }
}

/// What the state says now; `None` before the cluster's first entry.
/// What is assigned here, all addresses, and if it differs from the last view the VIPs of it that must wait: for
/// external fencing, and for routers outside.
type Look = (HolderView, BTreeSet<IpAddr>, [Vec<Key>; 2]);

fn look(
    me: NodeId,
    reader: &StateReader,
    specs: &Specs,
    last: Option<&HolderView>,
    external: Option<&External>,
    faces: &Faces,
) -> Option<Look> {
    let state = reader.read();
    if !state.bootstrapped {
        return None;
    }
    let addresses = state.addresses.keys().copied().collect();
    let view = view_of(me, &state, state.membership(), specs);
    let mut withheld = <[Vec<Key>; 2]>::default();
    if last != Some(&view) {
        withheld = [
            external.map_or_else(Vec::new, |e| e.assigned(me, &state, &view)),
            faces.assigned(&state, &view),
        ];
    }
    Some((view, addresses, withheld))
}

fn view_of(me: NodeId, state: &State, membership: Membership, specs: &Specs) -> HolderView {
    let mut assignments = Vec::new();
    for (name, vip) in &state.vips {
        let Some(assignment) = vip.assignment.as_ref().filter(|a| a.node == me) else {
            continue;
        };
        specs.keep(name, assignment.epoch, &vip.spec);
        assignments.push(Wanted {
            vip: name.clone(),
            epoch: assignment.epoch,
            addresses: vip.spec.addresses.iter().map(|a| a.ip).collect(),
        });
    }
    HolderView {
        membership,
        assignments,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(vip: &str, epoch: u64) -> Key {
        (vip.parse().unwrap(), Epoch(epoch))
    }

    fn spec(vip: &str) -> VipSpec {
        let spec = buoy_proto::v1::VipSpec {
            name: vip.into(),
            addresses: vec!["192.0.2.1".into()],
            interface: "eth0".into(),
            ..Default::default()
        };
        spec.try_into().unwrap()
    }

    /// What follows when these epochs are assigned here.
    fn applied(specs: &Specs, assigned: &[Key]) -> Option<u64> {
        let assignments = assigned.iter().map(|(vip, epoch)| {
            specs.keep(vip, *epoch, &spec(vip.as_str()));
            Wanted {
                vip: vip.clone(),
                epoch: *epoch,
                addresses: vec![],
            }
        });
        specs.turn(&HolderView {
            membership: Membership::default(),
            assignments: assignments.collect(),
        })
    }

    fn kept(specs: &Specs) -> Vec<Key> {
        specs.book().kept.keys().cloned().collect()
    }

    #[test]
    fn epochs_that_never_came_up_are_forgotten() {
        let specs = Specs::default();
        assert_eq!(applied(&specs, &[key("a", 5), key("b", 6)]), None);
        // A newer epoch of one, the other deleted; the lease thread may have opened either before.
        let turn = applied(&specs, &[key("a", 8)]).unwrap();
        assert_eq!(kept(&specs), [key("a", 5), key("a", 8), key("b", 6)]);
        specs.forget_ended(turn, |carried| *carried == key("a", 5));
        assert_eq!(
            kept(&specs),
            [key("a", 5), key("a", 8)],
            "what is carried stays"
        );
        specs.forget(&key("a", 5).0, Epoch(5));
        assert_eq!(kept(&specs), [key("a", 8)]);
        assert_eq!(applied(&specs, &[key("a", 8)]), None, "nothing ended");
    }

    #[test]
    fn an_epoch_that_ends_later_waits_for_its_own_turn() {
        let specs = Specs::default();
        applied(&specs, &[key("a", 5), key("b", 6)]);
        let first = applied(&specs, &[key("b", 6)]).unwrap();
        let second = applied(&specs, &[]).unwrap();
        specs.forget_ended(first, |_| false);
        assert_eq!(kept(&specs), [key("b", 6)]);
        specs.forget_ended(second, |_| false);
        assert_eq!(kept(&specs), []);
    }

    #[test]
    fn a_thousand_moves_leave_nothing_behind() {
        let specs = Specs::default();
        for epoch in 1..1_000 {
            if let Some(turn) = applied(&specs, &[key("a", epoch)]) {
                specs.forget_ended(turn, |_| false);
            }
        }
        assert_eq!(kept(&specs), [key("a", 999)]);
    }
}
