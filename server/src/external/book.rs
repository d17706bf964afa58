//! Which runs are to be begun, ended and waited for. Plain data: what happens goes in, what is to be done comes out.
//!
//! A run is for one victim and one log entry, however many VIPs the entry gave to this node. It begins when the first of
//! them is granted by a quorum: no voter of that quorum knows of a later decision, so that a node that is cut off, or
//! reads an old log, has nobody fenced. At most one run for each victim at a time.

use std::collections::{BTreeMap, BTreeSet};

use buoy_core::health::UNFENCED;
use buoy_core::state::Takeover;
use buoy_core::{Epoch, NodeName, VipName};

use super::order::{Order, RunId};
use crate::config::OnFailure;

/// A VIP under one epoch.
pub type Key = (VipName, Epoch);

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Run the program, then say [`Book::finished`].
    Start(Order),
    /// End the run early; [`Book::finished`] is said all the same.
    Kill(RunId),
    /// The VIP need not wait any more.
    LetUp(Key),
    /// The VIP stays down here.
    GiveUp(Key, String),
    /// What an operator should know of a run; `None`: nothing any more.
    Warn(RunId, Option<String>),
}

/// How far a VIP of a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Assigned,
    Granted,
    /// It went down under this epoch, and never comes up again.
    Ended,
}

/// How far a run is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing is granted yet.
    Noted,
    /// Another one for the same victim goes first.
    Queued,
    Running,
    /// Killed, and not known to be gone yet.
    Ending,
    /// Ended early: nobody knows what it did.
    Abandoned,
    /// The VIPs may be up.
    Settled,
    /// The VIPs stay down, and why.
    Refused(String),
}

struct Run {
    /// Epoch under which the victim had each VIP, and how far it is.
    vips: BTreeMap<VipName, (Epoch, Part)>,
    stage: Stage,
}

/// What survives the daemon.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Takeovers up to here have been looked at.
    pub seen: Epoch,
    /// Those of them that are not done with.
    pub unsettled: BTreeSet<Epoch>,
}

/// The book.
pub struct Book {
    wait: Option<OnFailure>,
    runs: BTreeMap<RunId, Run>,
    victims: BTreeMap<Key, NodeName>,
    /// Newest epoch that was looked at.
    noted: Epoch,
    /// Takeovers that an earlier run of the daemon left unsettled.
    left: BTreeSet<Epoch>,
}

impl Book {
    /// Goes on after an earlier run of the daemon.
    pub fn new(wait: Option<OnFailure>, record: Record) -> Book {
        Book {
            wait,
            runs: BTreeMap::new(),
            victims: BTreeMap::new(),
            noted: record.seen,
            left: record.unsettled,
        }
    }

    /// Takeovers up to this epoch are known.
    pub fn known(&self) -> Epoch {
        let before = |e: &Epoch| Epoch(e.0.saturating_sub(1));
        self.left
            .first()
            .map_or(self.noted, |e| before(e).min(self.noted))
    }

    /// What goes to disk.
    pub fn record(&self) -> Record {
        let open = self.runs.iter().filter(|(_, run)| !self.is_settled(run));
        let open = open.filter(|(_, run)| !run.vips.is_empty());
        Record {
            seen: self.noted,
            unsettled: open
                .map(|(id, _)| id.1)
                .chain(self.left.iter().copied())
                .collect(),
        }
    }

    /// The state with log index `applied` assigns this to the node; `takeovers`: those of it after [`Book::known`].
    /// Returns the VIPs that must wait.
    pub fn assigned(
        &mut self,
        applied: u64,
        mine: &BTreeMap<VipName, Epoch>,
        takeovers: Vec<Takeover>,
        effects: &mut Vec<Effect>,
    ) -> Vec<Key> {
        let mut fresh: BTreeMap<Key, (NodeName, Epoch)> = BTreeMap::new();
        for (vip, epoch) in mine.iter().filter(|(_, epoch)| **epoch > self.noted) {
            // What was to be done for an earlier epoch here, and was not, is still to be done.
            let owed = self
                .runs
                .iter()
                .filter(|(id, run)| id.1 < *epoch && !self.is_settled(run));
            let owed = owed.filter_map(|(id, run)| Some((id, run.vips.get(vip)?.0)));
            if let Some(((victim, _), before)) = owed.max_by_key(|(id, _)| id.1) {
                fresh.insert((vip.clone(), *epoch), (victim.clone(), before));
            }
        }
        for t in takeovers {
            let new = t.epoch > self.noted || self.left.contains(&t.epoch);
            if new && mine.get(&t.vip) == Some(&t.epoch) {
                fresh.insert((t.vip, t.epoch), (t.victim, t.victim_epoch));
            }
        }
        let newest = mine.values().max().copied().unwrap_or_default();
        self.noted = self.noted.max(newest);
        self.left.retain(|epoch| epoch.0 > applied);
        self.drop_others(mine, effects);
        let mut withheld = Vec::new();
        for (key, (victim, before)) in fresh {
            if self.victims.contains_key(&key) {
                continue;
            }
            let run = self.runs.entry((victim.clone(), key.1)).or_insert(Run {
                vips: BTreeMap::new(),
                stage: Stage::Noted,
            });
            run.vips.insert(key.0.clone(), (before, Part::Assigned));
            self.victims.insert(key.clone(), victim);
            withheld.push(key);
        }
        withheld.retain(|_| self.wait.is_some());
        withheld
    }

    /// A quorum grants the VIP.
    pub fn granted(&mut self, key: &Key, effects: &mut Vec<Effect>) {
        let waits = self.wait.is_some();
        let Some((id, run)) = self.run_of(key) else {
            return;
        };
        if let Some((_, part)) = run.vips.get_mut(&key.0)
            && *part == Part::Assigned
        {
            *part = Part::Granted;
        } else {
            return;
        }
        match &run.stage {
            Stage::Noted => {
                run.stage = Stage::Queued;
                self.start_next(&id.0, effects);
            }
            Stage::Settled if waits => effects.push(Effect::LetUp(key.clone())),
            Stage::Refused(why) => effects.push(Effect::GiveUp(key.clone(), why.clone())),
            Stage::Queued | Stage::Running | Stage::Ending | Stage::Abandoned | Stage::Settled => {}
        }
    }

    /// The VIP went down.
    pub fn ended(&mut self, key: &Key, effects: &mut Vec<Effect>) {
        let Some((id, run)) = self.run_of(key) else {
            return;
        };
        if let Some((_, part)) = run.vips.get_mut(&key.0) {
            *part = Part::Ended;
        }
        self.abandon(&id, effects);
    }

    /// A run is over, whether it was killed or not.
    pub fn finished(&mut self, id: &RunId, result: Result<(), String>, effects: &mut Vec<Effect>) {
        let wait = self.wait;
        let Some(run) = self.runs.get_mut(id) else {
            return;
        };
        if run.stage == Stage::Ending {
            run.stage = Stage::Abandoned;
        } else {
            let why = result
                .err()
                .map(|why| format!("{UNFENCED} of {} failed: {why}", id.0));
            let stays = wait == Some(OnFailure::StayDown);
            run.stage = match &why {
                Some(why) if stays => Stage::Refused(why.clone()),
                _ => Stage::Settled,
            };
            let warning = why.map(|why| match stays {
                true => why,
                false => format!("{why}; its VIPs were taken over anyway"),
            });
            effects.push(Effect::Warn(id.clone(), warning));
            for (vip, (_, part)) in &run.vips {
                let key = || (vip.clone(), id.1);
                match (&run.stage, part) {
                    (_, Part::Ended) => {}
                    (Stage::Refused(why), _) => effects.push(Effect::GiveUp(key(), why.clone())),
                    (_, Part::Granted) if wait.is_some() => effects.push(Effect::LetUp(key())),
                    (_, Part::Granted | Part::Assigned) => {}
                }
            }
        }
        if run.vips.is_empty() {
            self.forget(id, effects);
        }
        self.start_next(&id.0, effects);
    }

    /// The node that should have been fenced before this epoch may be left to another node or epoch, and was not.
    pub fn owed(&self, key: &Key) -> Option<&NodeName> {
        let victim = self.victims.get(key)?;
        let run = self.runs.get(&(victim.clone(), key.1))?;
        (!self.is_settled(run)).then_some(victim)
    }

    /// Is there nothing more to be done about the victim? Without waiting it is enough to have begun.
    fn is_settled(&self, run: &Run) -> bool {
        match run.stage {
            Stage::Settled => true,
            Stage::Running => self.wait.is_none(),
            Stage::Noted | Stage::Queued | Stage::Ending | Stage::Abandoned | Stage::Refused(_) => {
                false
            }
        }
    }

    fn run_of(&mut self, key: &Key) -> Option<(RunId, &mut Run)> {
        let id = (self.victims.get(key)?.clone(), key.1);
        let run = self.runs.get_mut(&id)?;
        Some((id, run))
    }

    /// Forgets what is not assigned here any more.
    fn drop_others(&mut self, mine: &BTreeMap<VipName, Epoch>, effects: &mut Vec<Effect>) {
        let gone: Vec<Key> = self
            .victims
            .keys()
            .filter(|(vip, epoch)| mine.get(vip) != Some(epoch))
            .cloned()
            .collect();
        for key in gone {
            let Some((id, run)) = self.run_of(&key) else {
                continue;
            };
            run.vips.remove(&key.0);
            self.victims.remove(&key);
            self.abandon(&id, effects);
        }
    }

    /// Ends a run that no VIP waits for any more. One that nothing waits for in any case goes on: the victim is to be
    /// fenced, whoever has the VIPs by then.
    fn abandon(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        let waits = self.wait.is_some();
        let Some(run) = self.runs.get_mut(id) else {
            return;
        };
        if run.vips.values().any(|(_, part)| *part != Part::Ended) {
            return;
        }
        match run.stage {
            Stage::Running if waits => {
                run.stage = Stage::Ending;
                effects.push(Effect::Kill(id.clone()));
            }
            Stage::Noted | Stage::Queued => run.stage = Stage::Abandoned,
            _ => {}
        }
        let ends_later = matches!(run.stage, Stage::Running | Stage::Ending);
        if run.vips.is_empty() && !ends_later {
            self.forget(id, effects);
        }
    }

    fn forget(&mut self, id: &RunId, effects: &mut Vec<Effect>) {
        self.runs.remove(id);
        effects.push(Effect::Warn(id.clone(), None));
    }

    /// Starts the first run that waits for its turn with this victim.
    fn start_next(&mut self, victim: &NodeName, effects: &mut Vec<Effect>) {
        let all = (victim.clone(), Epoch(0))..=(victim.clone(), Epoch(u64::MAX));
        let busy = |run: &Run| matches!(run.stage, Stage::Running | Stage::Ending);
        if self.runs.range(all.clone()).any(|(_, run)| busy(run)) {
            return;
        }
        let mut queued = self.runs.range_mut(all);
        let Some((id, run)) = queued.find(|(_, run)| run.stage == Stage::Queued) else {
            return;
        };
        run.stage = Stage::Running;
        let vips = run
            .vips
            .iter()
            .map(|(vip, (before, _))| (vip.clone(), *before));
        effects.push(Effect::Start(Order {
            id: id.clone(),
            vips: vips.collect(),
        }));
        if self.wait.is_some() {
            let warning = format!(
                "{UNFENCED} of {} runs, and the VIPs that were taken from it with epoch {} wait for its success",
                id.0, id.1
            );
            effects.push(Effect::Warn(id.clone(), Some(warning)));
        }
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
