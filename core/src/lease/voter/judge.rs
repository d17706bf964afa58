//! The voter's decisions: rules 2 to 6, for a renewal that just came or one that waits.

use std::collections::BTreeMap;
use std::mem;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::sessions::{Intake, Record};
use super::{Voter, VoterEffect};
use crate::ids::{Epoch, Session};
use crate::lease::messages::{Answer, Claim, LogView, Pending, Renew, Verdict};
use crate::time::Mono;

/// Outcome of rule 3 for one claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Decision {
    Denied,
    Granted,
    /// The obstacle ends by itself then (`None`: the voter cannot know when).
    Waits(Option<Mono>),
}

impl Voter {
    /// Drops promises that have ended. True when an address became free.
    pub(super) fn expire(&mut self, now: Mono) -> bool {
        let mut lapsed = Vec::new();
        let freed = self.book.expire(now, &mut lapsed);
        for session in lapsed {
            if let Some(record) = self.sessions.get_mut(session) {
                record.judged = false;
            }
        }
        freed
    }

    /// Takes over a view of the log; every session is judged by it. True when an address became free.
    pub(super) fn take_log(
        &mut self,
        now: Mono,
        log: Arc<LogView>,
        effects: &mut Vec<VoterEffect>,
    ) -> bool {
        if Arc::ptr_eq(&log, &self.log) {
            return false;
        }
        let changed = *log != *self.log;
        self.log = log;
        if !changed {
            return false;
        }
        let mut before = BTreeMap::new();
        for (session, record) in self.sessions.iter() {
            before.insert(
                session,
                (record.judged, record.denied.clone(), record.pending.clone()),
            );
        }
        for record in self.sessions.values_mut() {
            record.judged = false;
        }
        let mut freed = false;
        for (session, (judged, denied, pending)) in before {
            if !self.waits(now, session) {
                continue;
            }
            freed |= self.judge(now, session, effects);
            let Some(record) = self.sessions.get(session) else {
                continue;
            };
            if !judged || record.denied != denied || record.pending != pending {
                self.push(now, session, effects);
            }
        }
        freed
    }

    /// Judges pending claims again after something that may have unblocked them, and pushes answers
    /// that differ. True when that freed an address.
    pub(super) fn look_again(&mut self, now: Mono, effects: &mut Vec<VoterEffect>) -> bool {
        let waiting: Vec<Session> = self
            .sessions
            .iter()
            .filter(|(_, r)| r.judged && !r.pending.is_empty())
            .map(|(s, _)| s)
            .filter(|s| self.waits(now, *s))
            .collect();
        let mut freed = false;
        for session in waiting {
            let before = self.sessions.get(session).map_or(0, |r| r.pending.len());
            freed |= self.judge(now, session, effects);
            // A claim only leaves this list by being granted or denied.
            if self
                .sessions
                .get(session)
                .is_some_and(|r| r.pending.len() != before)
            {
                self.push(now, session, effects);
            }
        }
        freed
    }

    /// Rules 1 to 6 for a renewal. True when it freed an address.
    pub(super) fn renew(
        &mut self,
        now: Mono,
        renew: Renew,
        effects: &mut Vec<VoterEffect>,
    ) -> bool {
        let (session, seq) = (renew.session, renew.seq);
        let book = &self.book;
        match self.sessions.take(now, renew, |s| book.holds(s)) {
            Intake::Stale => return false,
            Intake::Unacceptable => {
                effects.push(self.answer(session, seq, Verdict::Refused));
                return false;
            }
            Intake::Recorded => {}
        }
        let Some(record) = self.sessions.get(session) else {
            return false;
        };
        if !self.in_force(record) {
            effects.push(self.answer(session, seq, Verdict::Refused));
            return false;
        }
        if !record.listed() {
            effects.push(self.answer(session, seq, Verdict::UnknownRev));
            return false;
        }
        let freed = self.judge(now, session, effects);
        self.push(now, session, effects);
        freed
    }

    /// Rule 2: this node votes in the membership of its own log, and the renewal names that one.
    fn in_force(&self, record: &Record) -> bool {
        self.log.membership.is_voter(self.me) && record.config == self.log.membership.id
    }

    pub(super) fn length(&self, record: &Record) -> Duration {
        self.allowance.voter_length(record.lease)
    }

    /// May an answer still be of use to the session? Not when its lease, counted from the renewal, is
    /// over anyway, nor when a newer run of its node has been heard: a promise would only be in the way.
    fn waits(&self, now: Mono, session: Session) -> bool {
        self.sessions
            .get(session)
            .is_some_and(|r| r.listed() && self.in_force(r) && r.at + self.length(r) > now)
            && self.sessions.is_newest_run(session)
    }

    /// Rules 3 to 5 for the newest renewal of a session: all claims where they have not been judged
    /// under the present log, else the pending ones only; O(1) in the number of addresses when none is
    /// pending. True when an address became free.
    fn judge(&mut self, now: Mono, session: Session, effects: &mut Vec<VoterEffect>) -> bool {
        let Some(place) = self.sessions.get_mut(session) else {
            return false;
        };
        let mut record = mem::take(place);
        let length = self.length(&record);
        let durable = length <= self.longest.allowed();
        let mut freed = false;
        if !record.judged || !durable {
            freed |= self.release_missing(session, &record.claims);
            record.denied.clear();
            record.pending.clone_from(&record.claims);
            record.judged = true;
        }
        if !durable && !record.claims.is_empty() {
            self.raise(now, length, effects);
        }
        for claim in mem::take(&mut record.pending) {
            match self.decide(now, session, &claim, durable) {
                Decision::Granted => self.book.grant(claim.address, session, claim.epoch),
                Decision::Waits(_) => record.pending.push(claim),
                Decision::Denied => {
                    freed |= self.deny(session, &claim);
                    record.denied.push(claim);
                }
            }
        }
        // From the renewal, not from a push: it is what the holder counts from, and a change of the log
        // must not prolong the promises of a session that has fallen silent.
        if record.granted() > 0 {
            self.book.extend(session, record.at + length);
        }
        if let Some(place) = self.sessions.get_mut(session) {
            *place = record;
        }
        freed
    }

    /// Rule 4: promises whose claim is not in the list any more (see the module page for the order).
    fn release_missing(&mut self, session: Session, claims: &[Claim]) -> bool {
        let released: Vec<IpAddr> = self
            .book
            .of(session)
            .filter(|(address, epoch)| newest_epoch(claims, *address).is_none_or(|e| e > *epoch))
            .map(|(address, _)| address)
            .collect();
        for address in &released {
            self.book.drop_promise(*address);
        }
        !released.is_empty()
    }

    /// Rule 3, in its order.
    fn decide(&self, now: Mono, session: Session, claim: &Claim, durable: bool) -> Decision {
        let live = self.book.get(claim.address);
        if live.is_some_and(|p| p.epoch > claim.epoch) || self.log.supersedes(claim) {
            return Decision::Denied;
        }
        if !durable {
            return Decision::Waits(None);
        }
        match live {
            Some(p) if p.session == session && p.epoch == claim.epoch => Decision::Granted,
            Some(p) => Decision::Waits(Some(self.book.until(p))),
            None if self.quarantine_until > now => Decision::Waits(Some(self.quarantine_until)),
            None if !self.log.assigns(claim, session.node) => Decision::Waits(None),
            None => Decision::Granted,
        }
    }

    /// A denied claim's promise is not extended and runs out; a promise of the session for a larger
    /// epoch, which its list does not name, is released (rule 4).
    fn deny(&mut self, session: Session, claim: &Claim) -> bool {
        match self.book.get(claim.address) {
            Some(p) if p.session == session && p.epoch > claim.epoch => {
                self.book.drop_promise(claim.address);
                true
            }
            Some(p) if p.session == session && p.epoch == claim.epoch => {
                self.book.detach(claim.address);
                false
            }
            _ => false,
        }
    }

    /// Answers the newest renewal of a session by what was judged (rule 6).
    fn push(&self, now: Mono, session: Session, effects: &mut Vec<VoterEffect>) {
        let Some(record) = self.sessions.get(session) else {
            return;
        };
        let durable = self.length(record) <= self.longest.allowed();
        let pending = record.pending.iter().map(|claim| {
            let wait = match self.decide(now, session, claim, durable) {
                Decision::Waits(Some(until)) => until.since(now),
                _ => Duration::ZERO,
            };
            Pending {
                address: claim.address,
                wait,
            }
        });
        let verdict = Verdict::Claims {
            rev: record.asked,
            denied: record.denied.clone(),
            pending: pending.collect(),
        };
        effects.push(self.answer(session, record.seq, verdict));
    }

    fn answer(&self, session: Session, seq: u64, verdict: Verdict) -> VoterEffect {
        let config = self.log.membership.id;
        VoterEffect::Answer(Answer {
            voter: self.me,
            session,
            seq,
            config,
            verdict,
        })
    }
}

/// Epoch under which a list (in order of address) claims an address.
fn newest_epoch(claims: &[Claim], address: IpAddr) -> Option<Epoch> {
    let at = claims.binary_search_by_key(&address, |c| c.address).ok()?;
    Some(claims[at].epoch)
}
