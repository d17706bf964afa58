//! Tries the rules on packets of this machine to itself, in tables of another name.
//!
//! Every address of 127.0.0.0/8 is one of this machine's, so an address there can be fenced and spoken to
//! without changing anything that others use.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

use buoy_core::Mono;

use super::features::Features;
use super::message::DEL_TABLE;
use super::tables::Tables;
use super::{failed, open};
use crate::clock::boottime;
use crate::gate::tc::Tc;
use crate::gate::{GateError, SlotId};

/// Name of the tables. Those that a killed predecessor left are replaced.
const TRIAL: &str = "buoy-trial";
const TRIAL_STAND_IN: &str = "buoy-trial-stand-in";
pub(super) const FENCED: Ipv4Addr = Ipv4Addr::new(127, 82, 107, 1);
const OTHER: Ipv4Addr = Ipv4Addr::new(127, 82, 107, 2);
const SLOT: SlotId = 1;
const LOOPBACK: u32 = 1;
const AHEAD: Duration = Duration::from_secs(20);
/// A lease that is over soon, and how late the kernel may be about that: less than the margin that promises
/// have for this gate.
const SHORT: Duration = Duration::from_millis(60);
const LATE: Duration = Duration::from_millis(30);
/// On this machine a packet arrives before the call that sends it returns; nothing arrives later.
const ARRIVES_WITHIN: Duration = Duration::from_millis(5);

/// Runs the trial.
pub(super) fn run(tc: &mut Tc, features: Features) -> Result<(), GateError> {
    let mut tables = Tables::new(open(TRIAL)?, open(TRIAL_STAND_IN)?, features);
    tables.manage(IpAddr::V4(FENCED))?;
    tables.attach(tc, LOOPBACK)?;
    let tried = trials(&mut tables);
    let removed = tables.nl.transact(|b| {
        for family in features.families() {
            b.message(DEL_TABLE, 0, family, |b| b.table());
        }
    });
    tried.and(removed.map_err(|e| failed("remove the tables of its self-test", e)))
}

/// A socket that speaks to itself.
pub(super) struct Echo(UdpSocket);

impl Echo {
    pub(super) fn new(address: Ipv4Addr) -> Result<Echo, GateError> {
        let bound = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((address, 0))?;
            socket.connect(socket.local_addr()?)?;
            socket.set_read_timeout(Some(ARRIVES_WITHIN))?;
            Ok(socket)
        };
        bound()
            .map(Echo)
            .map_err(|e| GateError::kernel(format!("speak to {address} for its self-test"), e))
    }

    /// Whether a packet sent now arrives.
    pub(super) fn arrives(&self) -> bool {
        // A drop on the way out is an error of the call, one on the way in is silence.
        self.0.send(b"buoy").is_ok() && self.0.recv(&mut [0; 8]).is_ok()
    }
}

fn trials(tables: &mut Tables) -> Result<(), GateError> {
    let (fenced, other) = (Echo::new(FENCED)?, Echo::new(OTHER)?);
    let expect = |case: &str, passes: bool| {
        let words = |passes| if passes { "pass" } else { "drop" }.to_owned();
        for (who, echo, expected) in [("fenced", &fenced, passes), ("other", &other, true)] {
            let got = echo.arrives();
            if got != expected {
                return Err(GateError::SelfTest {
                    case: format!("packet of the {who} address on the loopback interface, {case}"),
                    expected: words(expected),
                    got: words(got),
                });
            }
        }
        Ok(())
    };
    expect("address not ours", false)?;
    tables.rest(IpAddr::V4(FENCED), SLOT)?;
    expect("no lease yet", false)?;
    let until = boottime() + AHEAD;
    tables.arm(until)?;
    expect("renewal sent and not answered", false)?;
    tables.advance(&[(SLOT, until)])?;
    expect("lease lasts", true)?;
    tables.advance(&[(SLOT, Mono::ZERO)])?;
    expect("lease ended", false)?;
    tables.shut_all()?;

    // A tick that is slower than the clock shows here.
    tables.rest(IpAddr::V4(FENCED), SLOT)?;
    let until = boottime() + SHORT;
    tables.arm(until)?;
    tables.advance(&[(SLOT, until)])?;
    std::thread::sleep(until.since(boottime()) + LATE);
    expect("lease over by itself", false)
}
