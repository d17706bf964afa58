//! The voter's volatile record of live promises, and the timers that end them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::ids::{Epoch, Session};
use crate::time::Mono;

/// A live promise for one address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Promise {
    /// Whom it was made to.
    pub session: Session,
    /// For which assignment.
    pub epoch: Epoch,
    /// `None`: it runs with the session's shared timer, which renewals extend. `Some`: it ends then.
    own: Option<Mono>,
}

/// The promises of one session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
struct Ledger {
    /// End of all its promises that have no timer of their own.
    shared: Mono,
    addresses: BTreeSet<IpAddr>,
}

/// All live promises of this voter; at most one for an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Book {
    promises: BTreeMap<IpAddr, Promise>,
    ledgers: BTreeMap<Session, Ledger>,
    own_timers: BTreeSet<(Mono, IpAddr)>,
}

impl Book {
    /// The promise for an address. Only meaningful after [`Book::expire`] at the present time.
    pub fn get(&self, address: IpAddr) -> Option<&Promise> {
        self.promises.get(&address)
    }

    /// When a promise ends, unless it is extended.
    pub fn until(&self, promise: &Promise) -> Mono {
        promise.own.unwrap_or_else(|| {
            self.ledgers
                .get(&promise.session)
                .map_or(Mono::ZERO, |l| l.shared)
        })
    }

    /// Has the session any live promise?
    pub fn holds(&self, session: Session) -> bool {
        self.ledgers.contains_key(&session)
    }

    /// Addresses promised to the session, with their epochs.
    pub fn of(&self, session: Session) -> impl Iterator<Item = (IpAddr, Epoch)> + '_ {
        self.ledgers
            .get(&session)
            .into_iter()
            .flat_map(|l| l.addresses.iter())
            .filter_map(|a| self.promises.get(a).map(|p| (*a, p.epoch)))
    }

    /// Every promise: address, session, epoch, end.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, Session, Epoch, Mono)> + '_ {
        self.promises
            .iter()
            .map(|(a, p)| (*a, p.session, p.epoch, self.until(p)))
    }

    /// Makes a promise, or puts one that the session has back on its shared timer. The caller extends
    /// the timer before anything else happens.
    pub fn grant(&mut self, address: IpAddr, session: Session, epoch: Epoch) {
        let mine = |p: &&Promise| p.session == session && p.epoch == epoch;
        let until = self
            .promises
            .get(&address)
            .filter(mine)
            .map(|p| self.until(p));
        self.drop_promise(address);
        self.promises.insert(
            address,
            Promise {
                session,
                epoch,
                own: None,
            },
        );
        let ledger = self.ledgers.entry(session).or_default();
        ledger.addresses.insert(address);
        ledger.shared = ledger.shared.max(until.unwrap_or(Mono::ZERO));
    }

    /// Extends the shared timer of a session; never moves it back (rule 5). O(log sessions).
    pub fn extend(&mut self, session: Session, until: Mono) {
        if let Some(ledger) = self.ledgers.get_mut(&session) {
            ledger.shared = ledger.shared.max(until);
        }
    }

    /// Takes a promise off the shared timer: it ends when that timer would have ended by now.
    pub fn detach(&mut self, address: IpAddr) {
        if let Some(promise) = self.promises.get_mut(&address)
            && promise.own.is_none()
            && let Some(ledger) = self.ledgers.get(&promise.session)
        {
            promise.own = Some(ledger.shared);
            self.own_timers.insert((ledger.shared, address));
        }
    }

    /// Drops a promise: released, or at its end.
    pub fn drop_promise(&mut self, address: IpAddr) {
        let Some(promise) = self.promises.remove(&address) else {
            return;
        };
        if let Some(own) = promise.own {
            self.own_timers.remove(&(own, address));
        }
        if let Some(ledger) = self.ledgers.get_mut(&promise.session) {
            ledger.addresses.remove(&address);
            // With the last promise goes the timer: a later promise starts from zero, which is safe,
            // as nothing rests on the old end any more.
            if ledger.addresses.is_empty() {
                self.ledgers.remove(&promise.session);
            }
        }
    }

    /// Drops what has ended; appends the sessions whose shared timer ended to `lapsed`. True when
    /// anything was dropped. O(sessions) when nothing ended.
    pub fn expire(&mut self, now: Mono, lapsed: &mut Vec<Session>) -> bool {
        let mut any = false;
        while let Some((_, address)) = self
            .own_timers
            .first()
            .copied()
            .filter(|(at, _)| *at <= now)
        {
            self.drop_promise(address);
            any = true;
        }
        let first = lapsed.len();
        let shared_over = |(session, ledger): (&Session, &Ledger)| {
            (ledger.shared <= now && self.shares_timer(ledger)).then_some(*session)
        };
        lapsed.extend(self.ledgers.iter().filter_map(shared_over));
        for session in &lapsed[first..] {
            let over: Vec<IpAddr> = self
                .of(*session)
                .map(|(address, _)| address)
                .filter(|a| self.promises.get(a).is_some_and(|p| p.own.is_none()))
                .collect();
            for address in over {
                self.drop_promise(address);
                any = true;
            }
        }
        any
    }

    /// The next time at which a promise ends.
    pub fn next_end(&self) -> Option<Mono> {
        let own = self.own_timers.first().map(|(at, _)| *at);
        let shared = self
            .ledgers
            .values()
            .filter(|l| self.shares_timer(l))
            .map(|l| l.shared)
            .min();
        own.into_iter().chain(shared).min()
    }

    /// When the last of the promises ends, unless it is extended. O(sessions).
    pub fn last_end(&self) -> Option<Mono> {
        let own = self.own_timers.last().map(|(at, _)| *at);
        let shared = self.ledgers.values().map(|l| l.shared).max();
        own.max(shared)
    }

    /// Runs any promise of the ledger with the shared timer? Nearly always the first one does.
    fn shares_timer(&self, ledger: &Ledger) -> bool {
        ledger
            .addresses
            .iter()
            .any(|a| self.promises.get(a).is_some_and(|p| p.own.is_none()))
    }
}
