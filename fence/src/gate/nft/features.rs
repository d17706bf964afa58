//! What this kernel's nf_tables can do, found by trying it.

use tracing::debug;

use super::failed;
use super::message::{ARP, CREATE, DEL_TABLE, EXCL, INET, NETDEV, NEW_CHAIN, NEW_SET, NEW_TABLE};
use super::socket::{Netfilter, Refusal};
use crate::gate::GateError;
use crate::gate::missing;
use crate::process::release;

/// The table may only be changed through the socket that made it (`NFT_TABLE_F_OWNER`, Linux 5.12) and
/// outlives it (`NFT_TABLE_F_PERSIST`, 6.9). The first without the second would open the gate when the
/// process dies.
const OWNED_AND_PERSISTENT: u32 = 0x2 | 0x4;

/// Name of the tables that are tried.
pub(super) const PROBE: &str = "buoy-probe";

/// What there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Features {
    /// Tables that nobody else can change, and that outlive the process.
    pub(super) owner: bool,
    /// Chains that see every frame that leaves an interface (Linux 5.16).
    pub(super) egress: bool,
}

impl Features {
    /// Tries everything, in transactions that leave nothing behind.
    pub(super) fn probe(nl: &mut Netfilter) -> Result<Features, GateError> {
        for family in [INET, ARP] {
            try_table(nl, family, 0, None).map_err(|e| unavailable(family, e))?;
        }
        let mut tried = |name: &str, family, flags, hook| match try_table(nl, family, flags, hook) {
            Ok(()) => true,
            Err(e) => {
                debug!("this kernel has no {name} in nf_tables: {}", e.into_io());
                false
            }
        };
        Ok(Features {
            owner: tried(
                "owned tables that persist",
                INET,
                OWNED_AND_PERSISTENT,
                None,
            ),
            egress: tried("egress hook", NETDEV, 0, Some("lo")),
        })
    }

    /// Families that get a table.
    pub(super) fn families(self) -> impl Iterator<Item = u8> {
        [INET, ARP].into_iter().chain(self.egress.then_some(NETDEV))
    }

    pub(super) fn table_flags(self) -> u32 {
        if self.owner { OWNED_AND_PERSISTENT } else { 0 }
    }
}

/// A table, a set that counts and expires, and a chain on a device's egress, made and removed in one step.
fn try_table(
    nl: &mut Netfilter,
    family: u8,
    flags: u32,
    egress: Option<&str>,
) -> Result<(), Refusal> {
    nl.transact(|b| {
        b.message(NEW_TABLE, CREATE | EXCL, family, |b| {
            b.table();
            b.number(2, flags);
        });
        b.message(NEW_SET, CREATE, family, |b| {
            b.table();
            b.text(2, "s");
            b.number(3, 0);
            b.number(4, 7);
            b.number(5, 4);
            b.number(10, 1);
            b.nest(17, |b| {
                b.text(1, "counter");
                b.nest(2, |_| {});
            });
        });
        if let Some(device) = egress {
            b.message(NEW_CHAIN, CREATE, family, |b| {
                b.table();
                b.text(3, "c");
                b.nest(4, |b| {
                    b.number(1, 1);
                    b.number(2, 0);
                    b.text(3, device);
                });
                b.number(5, 1);
                b.text(7, "filter");
            });
        }
        b.message(DEL_TABLE, 0, family, |b| b.table());
    })
}

fn unavailable(family: u8, refusal: Refusal) -> GateError {
    let action = "use nftables".to_owned();
    let (problem, remedy) = match refusal.errno {
        Some(libc::EPERM) => (
            "the process lacks CAP_NET_ADMIN in its network namespace".to_owned(),
            "run buoy as root or with `AmbientCapabilities=CAP_NET_ADMIN`".to_owned(),
        ),
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENOENT | libc::EINVAL) => (
            format!(
                "Linux {} refuses a table of family {} with counting sets ({})",
                release(),
                if family == ARP { "arp" } else { "inet" },
                refusal.into_io()
            ),
            "use Linux 5.7 or newer with CONFIG_NF_TABLES, CONFIG_NF_TABLES_INET, CONFIG_NF_TABLES_ARP and \
             CONFIG_NF_TABLES_NETDEV (modules nf_tables, nft_counter)"
                .to_owned(),
        ),
        _ => return failed(&action, refusal),
    };
    GateError::Unavailable {
        action,
        problem,
        remedy: format!("{remedy}, {}", missing::OPT_OUT),
    }
}
