//! Tells the tables that this gate made from those of another gate under the same name.
//!
//! Where the kernel lets nobody but the owner write (Linux 6.9), that is settled. Before, a gate that was stopped and woken
//! while its successor took over would write into the successor's tables, and could arm what that one's slots rest
//! on. So each gate leaves a mark of its own when it makes the tables, and each of its transactions
//! takes it out and puts it back: without it, the kernel refuses the whole.

use std::hash::{BuildHasher, RandomState};
use std::iter::once;

use super::features::Features;
use super::message::{Batch, CREATE, DEL_ELEMENT, EXCL, INET, NEW_ELEMENT};
use super::read;
use super::ruleset::{MAKER, Writer};
use super::socket::{Netfilter, Refusal};
use crate::gate::SLOTS;

/// The one element of [`MAKER`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mark(Option<u32>);

impl Mark {
    /// None where the kernel keeps others out.
    pub(super) fn new(features: Features) -> Mark {
        let random = RandomState::new().hash_one(SLOTS) as u32;
        Mark((!features.owner).then_some(random))
    }

    /// Leaves it in a table that has just been made.
    pub(super) fn make(self, w: &mut Writer<'_>) {
        let Some(mark) = self.0.filter(|_| w.family == INET) else {
            return;
        };
        w.numbers(MAKER);
        w.elements(
            NEW_ELEMENT,
            CREATE | EXCL,
            MAKER,
            once(mark.to_ne_bytes()),
            |_, _| {},
        );
    }

    /// Makes a transaction depend on it.
    pub(super) fn demand(self, b: &mut Batch) {
        let Some(mark) = self.0 else {
            return;
        };
        let mut w = Writer::new(b, INET);
        w.elements(DEL_ELEMENT, 0, MAKER, once(mark.to_ne_bytes()), |_, _| {});
        w.elements(
            NEW_ELEMENT,
            CREATE | EXCL,
            MAKER,
            once(mark.to_ne_bytes()),
            |_, _| {},
        );
    }

    /// Whether the tables are those that it was left in.
    pub(super) fn is_there(self, nl: &mut Netfilter) -> Result<bool, Refusal> {
        match self.0 {
            None => Ok(true),
            Some(mark) => read::has_number(nl, INET, MAKER, mark),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use buoy_core::Mono;

    use super::super::stand_in::STAND_IN;
    use super::super::tables::Tables;
    use super::super::{TABLE, open};
    use super::*;
    use crate::clock::boottime;
    use crate::gate::GateError;
    use crate::gate::tc::Tc;

    const LOOPBACK: u32 = 1;
    const AHEAD: Duration = Duration::from_secs(60);

    /// Tables as on a kernel that cannot own them; `None` where the test cannot run.
    pub(in super::super) fn unowned() -> Option<Tables> {
        let mut nl = open(TABLE).expect("a socket");
        match Features::probe(&mut nl) {
            Ok(found) => Some(Tables::new(
                nl,
                open(STAND_IN).expect("a socket"),
                Features {
                    owner: false,
                    ..found
                },
            )),
            Err(e @ GateError::Unavailable { .. }) => {
                println!("SKIP: {e}");
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "this test must run in CI"
                );
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// The calling thread lives in a network namespace of its own from now on; false, with a word on it, if it cannot.
    pub(in super::super) fn is_alone() -> bool {
        // SAFETY: plain calls; unshare changes this test's thread only.
        let alone = unsafe { libc::geteuid() == 0 && libc::unshare(libc::CLONE_NEWNET) == 0 };
        if !alone {
            println!("SKIP: no network namespace of our own");
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "this test must run in CI"
            );
        }
        alone
    }

    #[test]
    fn a_gate_writes_into_no_tables_but_its_own() {
        if !is_alone() {
            return;
        }
        let (Some(mut old), Some(mut new)) = (unowned(), unowned()) else {
            return;
        };
        let mut tc = Tc::new().expect("tc");
        let vip = [192, 0, 2, 1].into();
        old.manage(vip).expect("manage");
        old.attach(&mut tc, LOOPBACK).expect("attach");
        old.rest(vip, 1).expect("open");
        let renew = |tables: &mut Tables| {
            let until = boottime() + AHEAD;
            tables.arm(until)?;
            tables.advance(&[(1, until)])
        };
        renew(&mut old).expect("its own tables");
        old.shut_all().expect("shut");
        renew(&mut old).expect("still its own");
        assert_eq!(old.tampered().expect("read"), None);
        let armed = boottime() + AHEAD * 2;
        old.arm(armed).expect("arm");

        new.attach(&mut tc, LOOPBACK).expect("takes over");
        // It rests on the very rounds that the old one would arm and move to.
        new.rest(vip, 1).expect("open");
        let refused = [
            old.arm(boottime() + AHEAD * 3),
            old.advance(&[(1, armed)]),
            old.advance(&[(1, Mono::ZERO)]),
            old.rest(vip, 1),
            old.forget(vip),
            old.manage([192, 0, 2, 2].into()),
            old.shut_all(),
            old.detach(LOOPBACK),
        ];
        for (n, refused) in refused.into_iter().enumerate() {
            assert!(
                refused.is_err(),
                "change {n} of tables that are not its own"
            );
        }
        assert!(old.tampered().expect("read").is_some());
        assert_eq!(new.tampered().expect("read"), None);
        assert_eq!(new.deadlines.load(1), Mono::ZERO);
        renew(&mut new).expect("not hindered");
        new.detach(LOOPBACK).expect("its own to remove");
    }
}
