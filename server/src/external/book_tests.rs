//! What happens to VIPs, and which runs follow from it.

use super::*;

const STAY: Option<OnFailure> = Some(OnFailure::StayDown);
const ANYWAY: Option<OnFailure> = Some(OnFailure::TakeOverAnyway);

struct World {
    book: Book,
    mine: BTreeMap<VipName, Epoch>,
    applied: u64,
    effects: Vec<Effect>,
}

fn key(vip: &str, epoch: u64) -> Key {
    (vip.parse().unwrap(), Epoch(epoch))
}

fn id(victim: &str, epoch: u64) -> RunId {
    (victim.parse().unwrap(), Epoch(epoch))
}

fn order(victim: &str, epoch: u64, vips: &[&str]) -> Effect {
    Effect::Start(Order {
        id: id(victim, epoch),
        vips: vips
            .iter()
            .map(|v| (v.parse().unwrap(), Epoch(1)))
            .collect(),
    })
}

fn let_up(vip: &str, epoch: u64) -> Effect {
    Effect::LetUp(key(vip, epoch))
}

const WHY: &str = "external fencing of n1 failed: no";

fn give_up(vip: &str, epoch: u64) -> Effect {
    Effect::GiveUp(key(vip, epoch), WHY.to_owned())
}

impl World {
    fn new(wait: Option<OnFailure>) -> World {
        World::after(wait, Record::default())
    }

    fn after(wait: Option<OnFailure>, record: Record) -> World {
        World {
            book: Book::new(wait, record),
            mine: BTreeMap::new(),
            applied: 100,
            effects: Vec::new(),
        }
    }

    /// These are taken from a victim, which had them under epoch 1.
    fn takes(&mut self, victim: &str, epoch: u64, vips: &[&str]) -> Vec<Key> {
        for vip in vips {
            self.mine.insert(vip.parse().unwrap(), Epoch(epoch));
        }
        let known = self.book.known();
        let takeovers = vips.iter().map(|vip| Takeover {
            vip: vip.parse().unwrap(),
            epoch: Epoch(epoch),
            victim: victim.parse().unwrap(),
            victim_epoch: Epoch(1),
        });
        self.looks(takeovers.filter(|t| t.epoch > known).collect())
    }

    fn looks(&mut self, takeovers: Vec<Takeover>) -> Vec<Key> {
        self.applied += 1;
        self.book
            .assigned(self.applied, &self.mine, takeovers, &mut self.effects)
    }

    fn loses(&mut self, vip: &str) {
        self.mine.remove(&vip.parse::<VipName>().unwrap());
        self.looks(vec![]);
    }

    /// Another epoch, which the history knows as no takeover.
    fn gets(&mut self, vip: &str, epoch: u64) -> Vec<Key> {
        self.mine.insert(vip.parse().unwrap(), Epoch(epoch));
        self.looks(vec![])
    }

    fn granted(&mut self, vip: &str, epoch: u64) {
        self.book.granted(&key(vip, epoch), &mut self.effects);
    }

    fn ended(&mut self, vip: &str, epoch: u64) {
        self.book.ended(&key(vip, epoch), &mut self.effects);
    }

    fn finished(&mut self, victim: &str, epoch: u64, ok: bool) {
        let result = ok.then_some(()).ok_or_else(|| "no".to_owned());
        self.book
            .finished(&id(victim, epoch), result, &mut self.effects);
    }

    /// What followed, warnings aside.
    fn effects(&mut self) -> Vec<Effect> {
        let all = std::mem::take(&mut self.effects);
        all.into_iter()
            .filter(|e| !matches!(e, Effect::Warn(..)))
            .collect()
    }

    fn owed(&self, vip: &str, epoch: u64) -> bool {
        self.book.owed(&key(vip, epoch)).is_some()
    }
}

#[test]
fn many_vips_of_one_victim_are_one_run_that_begins_with_the_first_grant() {
    let mut w = World::new(None);
    assert_eq!(w.takes("n1", 7, &["a", "b"]), [], "nothing waits");
    assert_eq!(w.effects(), []);
    w.granted("b", 7);
    assert_eq!(w.effects(), [order("n1", 7, &["a", "b"])]);
    w.granted("a", 7);
    w.granted("b", 7);
    w.finished("n1", 7, true);
    w.looks(vec![]);
    assert_eq!(w.effects(), [], "once");
}

#[test]
fn what_is_no_takeover_runs_nothing() {
    for wait in [None, STAY] {
        let mut w = World::new(wait);
        assert_eq!(w.gets("a", 7), []);
        w.granted("a", 7);
        w.ended("a", 7);
        assert_eq!(w.effects, []);
    }
}

#[test]
fn vips_that_wait_come_up_after_success_only() {
    let mut w = World::new(STAY);
    assert_eq!(w.takes("n1", 7, &["a", "b"]), [key("a", 7), key("b", 7)]);
    w.granted("a", 7);
    assert_eq!(w.effects(), [order("n1", 7, &["a", "b"])]);
    assert!(w.owed("a", 7));
    w.finished("n1", 7, true);
    assert_eq!(w.effects(), [let_up("a", 7)]);
    assert!(!w.owed("a", 7));
    w.granted("b", 7);
    assert_eq!(w.effects(), [let_up("b", 7)], "the run was for it as well");
    // What comes after it comes up is not looked at again.
    w.granted("a", 7);
    assert_eq!(w.effects(), []);
}

#[test]
fn a_failure_is_handled_as_configured() {
    let mut w = World::new(STAY);
    w.takes("n1", 7, &["a", "b"]);
    w.granted("a", 7);
    w.effects();
    w.finished("n1", 7, false);
    assert_eq!(w.effects(), [give_up("a", 7), give_up("b", 7)]);
    w.granted("b", 7);
    assert_eq!(w.effects(), [give_up("b", 7)]);
    assert!(w.owed("a", 7) && w.owed("b", 7));

    let mut w = World::new(ANYWAY);
    w.takes("n1", 7, &["a"]);
    w.granted("a", 7);
    w.effects();
    w.finished("n1", 7, false);
    let warning = format!("{WHY}; its VIPs were taken over anyway");
    assert_eq!(
        std::mem::take(&mut w.effects),
        [Effect::Warn(id("n1", 7), Some(warning)), let_up("a", 7)]
    );
    assert!(!w.owed("a", 7));
    w.loses("a");
    assert_eq!(w.effects, [Effect::Warn(id("n1", 7), None)]);
}

#[test]
fn a_new_epoch_here_waits_for_what_the_last_one_did_not_get() {
    for end in ["failed", "abandoned"] {
        let mut w = World::new(STAY);
        w.takes("n1", 7, &["a"]);
        w.granted("a", 7);
        if end == "failed" {
            w.finished("n1", 7, false);
            w.ended("a", 7);
        } else {
            w.ended("a", 7);
            w.finished("n1", 7, false);
        }
        w.effects();
        assert_eq!(w.gets("a", 9), [key("a", 9)], "{end}");
        w.granted("a", 9);
        assert_eq!(w.effects(), [order("n1", 9, &["a"])], "{end}");
        w.finished("n1", 9, true);
        assert_eq!(w.effects(), [let_up("a", 9)], "{end}");
        assert_eq!(w.gets("a", 11), [], "{end}: now it is fenced");
    }
}

#[test]
fn a_run_that_nobody_waits_for_any_more_is_killed() {
    let mut w = World::new(STAY);
    w.takes("n1", 7, &["a", "b"]);
    w.granted("a", 7);
    w.granted("b", 7);
    w.effects();
    w.ended("a", 7);
    assert_eq!(w.effects(), [], "b waits");
    w.loses("b");
    assert_eq!(w.effects(), [Effect::Kill(id("n1", 7))]);
    w.loses("a");
    w.finished("n1", 7, true);
    assert_eq!(w.effects(), [], "however it ended");
    assert!(w.book.runs.is_empty() && w.book.victims.is_empty());
}

#[test]
fn without_waiting_a_run_goes_on_whoever_has_the_vips() {
    let mut w = World::new(None);
    w.takes("n1", 7, &["a"]);
    w.granted("a", 7);
    w.effects();
    w.ended("a", 7);
    w.loses("a");
    assert_eq!(w.effects(), []);
    assert_eq!(w.book.runs.len(), 1);
    w.finished("n1", 7, false);
    assert!(w.book.runs.is_empty());
}

#[test]
fn a_victim_has_one_run_at_a_time() {
    let mut w = World::new(STAY);
    w.takes("n1", 7, &["a"]);
    w.takes("n1", 8, &["b"]);
    w.takes("n3", 9, &["c"]);
    for (vip, epoch) in [("b", 8), ("a", 7), ("c", 9)] {
        w.granted(vip, epoch);
    }
    assert_eq!(
        w.effects(),
        [order("n1", 8, &["b"]), order("n3", 9, &["c"])]
    );
    // Killed, it may still be there.
    w.loses("b");
    assert_eq!(w.effects(), [Effect::Kill(id("n1", 8))]);
    w.finished("n1", 8, false);
    assert_eq!(w.effects(), [order("n1", 7, &["a"])]);
}

#[test]
fn a_restart_neither_repeats_nor_forgets() {
    for (wait, finish, again) in [
        (None, None, false),
        (STAY, None, true),
        (STAY, Some(false), true),
        (STAY, Some(true), false),
        (ANYWAY, Some(false), false),
    ] {
        let mut w = World::new(wait);
        w.takes("n1", 7, &["a"]);
        w.granted("a", 7);
        if let Some(ok) = finish {
            w.finished("n1", 7, ok);
        }
        let record = w.book.record();
        assert_eq!(record.seen, Epoch(7));
        let mut w = World::after(wait, record);
        w.applied = 5;
        // The disk is behind at first.
        w.looks(vec![]);
        let withheld = w.takes("n1", 7, &["a"]);
        assert_eq!(withheld.len(), usize::from(again), "{wait:?} {finish:?}");
        w.granted("a", 7);
        assert_eq!(w.effects().len(), usize::from(again), "{wait:?} {finish:?}");
        // A later one is always looked at.
        w.takes("n1", 200, &["b"]);
        w.granted("b", 200);
        assert_eq!(w.book.record().seen, Epoch(200));
        assert!(w.book.runs.contains_key(&id("n1", 200)));
    }
}

#[test]
fn one_that_was_never_begun_is_begun_after_a_restart() {
    let mut w = World::new(None);
    w.takes("n1", 7, &["a"]);
    w.takes("n3", 8, &["b"]);
    w.granted("b", 8);
    let record = w.book.record();
    assert_eq!(record.unsettled, BTreeSet::from([Epoch(7)]));
    // What the cluster has given to another node meanwhile is dropped.
    let mut w = World::after(None, record);
    w.looks(vec![]);
    assert_eq!(w.book.record().unsettled, BTreeSet::new());
}
