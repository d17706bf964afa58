//! Fences while the tables are made anew.
//!
//! A transaction is one step for each chain, not for a packet that meets two of them: it may pass the new chain before the
//! change, when that is not in force yet, and then the old one after it, when that is in force no more. So tables of another
//! name, with everything shut, stand beside both: made before the change, removed after it, and each time only
//! once no packet is under way that began before. What a killed process left of them is shut, and goes with the next
//! rebuild.

use std::time::Duration;

use tracing::debug;

use super::failed;
use super::message::{Batch, DEL_TABLE};
use super::read::{self, FAMILIES};
use super::socket::{Netfilter, Refusal};
use crate::gate::GateError;

/// Name of the tables that stand in for [`TABLE`](super::ruleset::TABLE).
pub(super) const STAND_IN: &str = "buoy-stand-in";

/// Longer than any packet is under way in the hooks, unless its processor is taken away meanwhile.
const UNDER_WAY: Duration = Duration::from_millis(50);

pub(super) struct StandIn(Netfilter);

impl StandIn {
    pub(super) fn new(nl: Netfilter) -> StandIn {
        StandIn(nl)
    }

    /// Puts it up, with what `make` writes; returns when every packet meets it.
    pub(super) fn stand(&mut self, make: impl FnOnce(&mut Batch)) -> Result<(), GateError> {
        self.change(make).map_err(|e| failed("stand in", e))?;
        let_packets_end();
        Ok(())
    }

    /// Takes it away, if there is one, when no packet relies on it any more.
    pub(super) fn go(&mut self) -> Result<(), GateError> {
        let there = self.there().map_err(|e| failed("look for a stand-in", e))?;
        if there.is_empty() {
            return Ok(());
        }
        let_packets_end();
        self.change(|_| {})
            .map_err(|e| failed("remove a stand-in", e))
    }

    fn there(&mut self) -> Result<Vec<u8>, Refusal> {
        let mut there = Vec::new();
        for family in FAMILIES {
            if read::table(&mut self.0, family)?.is_some() {
                there.push(family);
            }
        }
        Ok(there)
    }

    fn change(&mut self, make: impl FnOnce(&mut Batch)) -> Result<(), Refusal> {
        let there = self.there()?;
        self.0.transact(|b| {
            for family in there {
                b.message(DEL_TABLE, 0, family, |b| b.table());
            }
            make(b);
        })
    }
}

/// Waits until no packet is under way that met the hooks of before: a grace period of the kernel (RCU), which
/// membarrier(2) waits for.
fn let_packets_end() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: plain call without pointers.
    let rc = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if rc != 0 {
        // Kernels with nohz_full processors do not offer it.
        debug!("membarrier: {}", std::io::Error::last_os_error());
        std::thread::sleep(UNDER_WAY);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::process::Command;

    use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

    use super::super::mark::tests::{is_alone, unowned};
    use super::super::message::{INET, NEW_TABLE, text};
    use super::super::open;
    use super::super::ruleset::TABLE;
    use super::super::selftest::{Echo, FENCED};
    use super::*;
    use crate::clock::boottime;
    use crate::gate::tc::Tc;
    use crate::sockets::set_option;

    const LOOPBACK: u32 = 1;
    /// NFNLGRP_NFTABLES.
    const CHANGES: u32 = 7;
    const NFTABLES: u16 = 10 << 8;

    #[test]
    fn it_shuts_by_itself_and_goes_without_a_trace() {
        if !is_alone() {
            return;
        }
        let Some(mut tables) = unowned() else {
            return;
        };
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip").success());
        let echo = Echo::new(FENCED).expect("an address of this machine");
        tables.manage(IpAddr::V4(FENCED)).expect("manage");
        tables
            .attach(&mut Tc::new().expect("tc"), LOOPBACK)
            .expect("attach");
        let until = boottime() + Duration::from_secs(60);
        tables.rest(IpAddr::V4(FENCED), 1).expect("rest");
        tables.arm(until).expect("arm");
        tables.advance(&[(1, until)]).expect("advance");
        assert!(echo.arrives(), "open");
        tables.put_up_stand_in().expect("a stand-in");
        assert!(!echo.arrives(), "shut, whatever the tables say");
        let removed = open(TABLE).expect("a socket").transact(|b| {
            for family in [INET, super::super::message::ARP] {
                b.message(DEL_TABLE, 0, family, |b| b.table());
            }
        });
        assert!(removed.is_ok());
        assert!(!echo.arrives(), "shut without the tables");
        tables.stand_in.go().expect("it goes");
        assert!(echo.arrives(), "nothing fences any more");
        tables.stand_in.go().expect("there is none");
    }

    /// Makings and removals of tables, as the kernel tells them.
    struct Ear(Socket);

    impl Ear {
        fn new() -> Ear {
            let mut socket = Socket::new(NETLINK_NETFILTER).expect("a socket");
            socket.bind_auto().expect("bind");
            socket.add_membership(CHANGES).expect("join");
            socket.set_non_blocking(true).expect("a flag");
            // Every element of a set is told as well.
            let size: libc::c_int = 16 << 20;
            set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &size).expect("room");
            Ear(socket)
        }

        fn heard(&self) -> Vec<(bool, String)> {
            let mut heard = Vec::new();
            loop {
                let mut bytes = Vec::with_capacity(64 * 1024);
                match self.0.recv(&mut bytes, 0) {
                    Ok(_) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return heard,
                    Err(e) => panic!("what the kernel tells: {e}"),
                }
                let mut rest = bytes.as_slice();
                while rest.len() >= 20 {
                    let length = u32::from_ne_bytes(*rest.first_chunk().expect("4 bytes")) as usize;
                    let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                    let made = kind == NFTABLES | u16::from(NEW_TABLE);
                    if (made || kind == NFTABLES | u16::from(DEL_TABLE)) && rest[16] == INET {
                        let name = text(&rest[20..length], 1).expect("a name");
                        heard.push((made, name.to_owned()));
                    }
                    rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
                }
            }
        }
    }

    #[test]
    fn tables_are_made_anew_under_its_protection() {
        if !is_alone() {
            return;
        }
        let (Some(mut first), Some(mut next)) = (unowned(), unowned()) else {
            return;
        };
        let mut tc = Tc::new().expect("tc");
        let ear = Ear::new();
        let (made, gone) = (true, false);
        let tell = |events: &[(bool, &str)]| {
            let events = events
                .iter()
                .map(|(made, name)| (*made, (*name).to_owned()));
            events.collect::<Vec<_>>()
        };
        first.attach(&mut tc, LOOPBACK).expect("attach");
        assert_eq!(ear.heard(), tell(&[(made, TABLE)]), "nothing to protect");
        let mut protected = tell(&[
            (made, STAND_IN),
            (gone, TABLE),
            (made, TABLE),
            (gone, STAND_IN),
        ]);
        first.attach(&mut tc, LOOPBACK).expect("made anew");
        assert_eq!(ear.heard(), protected);
        next.attach(&mut tc, LOOPBACK).expect("takes over");
        assert_eq!(ear.heard(), protected);
        // One that a killed process left is replaced.
        next.put_up_stand_in().expect("a stand-in");
        drop(next);
        first.attach(&mut tc, LOOPBACK).expect("made anew");
        protected.insert(0, (made, STAND_IN.to_owned()));
        protected.insert(1, (gone, STAND_IN.to_owned()));
        assert_eq!(ear.heard(), protected);
    }
}
