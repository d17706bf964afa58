//! Operations on a gate, drawn at random, for the model and for a real gate alike.

use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;
use buoy_fence::gate::{Gate as RealGate, GateError};
use buoy_jepsen_tests::sim::gate::{Gate as Model, Refusal};
use buoy_jepsen_tests::sim::rng::Rng;

/// Something done to a gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Manage(IpAddr),
    Inherit(Vec<IpAddr>),
    Open(IpAddr, u32),
    Shut(IpAddr),
    Forget(IpAddr),
    ForgetInherited(IpAddr),
    Arm(Mono),
    Advance(Vec<(u32, Mono)>),
    ShutAll,
    ClearAll,
}

impl Step {
    /// A step on one of the addresses. Deadlines are those of renewals that were sent within a lease, or some that
    /// nobody armed.
    pub fn draw(
        rng: &mut Rng,
        addresses: &[IpAddr],
        armed: &[Mono],
        now: Mono,
        lease: Duration,
    ) -> Step {
        let address = rng.pick(addresses).copied().expect("some addresses");
        match rng.below(100) {
            0..=14 => Step::Manage(address),
            15..=17 => {
                let some = addresses.iter().copied().filter(|_| rng.chance(300_000));
                Step::Inherit(some.map(|a| a.to_canonical()).collect())
            }
            18..=37 => Step::Open(address, slot(rng)),
            38..=44 => Step::Shut(address),
            45..=51 => Step::Forget(address),
            52..=55 => Step::ForgetInherited(address),
            56..=73 => Step::Arm(now + lease),
            74..=96 => {
                let moves = 1 + rng.below(4);
                let moves = (0..moves).map(|_| (slot(rng), deadline(rng, armed, now, lease)));
                Step::Advance(moves.collect())
            }
            97 | 98 => Step::ShutAll,
            _ => Step::ClearAll,
        }
    }

    /// Does it to the model.
    pub fn on_model(&self, gate: &mut Model, now: Mono) -> Result<(), Refusal> {
        match self {
            Step::Manage(a) => gate.manage(*a)?,
            Step::Inherit(all) => gate.inherit(all.iter().copied())?,
            Step::Open(a, slot) => gate.open(*a, *slot)?,
            Step::Shut(a) => gate.shut(*a)?,
            Step::Forget(a) => gate.forget(*a),
            Step::ForgetInherited(a) => gate.forget_inherited(*a),
            Step::Arm(until) => gate.arm(*until, now, Duration::ZERO),
            Step::Advance(moves) => gate.advance(moves)?,
            Step::ShutAll => gate.shut_all(),
            Step::ClearAll => gate.clear_all(),
        }
        Ok(())
    }

    /// Does it to a real gate; what that refuses must be something that the model knows.
    pub fn on_gate(&self, gate: &mut dyn RealGate) -> Result<(), Refusal> {
        let done = match self {
            Step::Manage(a) => gate.manage(*a),
            Step::Inherit(all) => gate.inherit(all),
            Step::Open(a, slot) => gate.open(*a, *slot),
            Step::Shut(a) => gate.shut(*a),
            Step::Forget(a) => gate.forget(*a),
            Step::ForgetInherited(a) => gate.forget_inherited(*a),
            Step::Arm(until) => gate.arm(*until),
            Step::Advance(moves) => gate.advance(moves),
            Step::ShutAll => gate.shut_all(),
            Step::ClearAll => gate.clear_all(),
        };
        done.map_err(|e| match e {
            GateError::NotManaged { .. } => Refusal::NotManaged,
            GateError::NoSuchSlot { .. } => Refusal::NoSuchSlot,
            GateError::Full { .. } => Refusal::Full,
            other => panic!("{self:?}: {other}"),
        })
    }
}

/// A slot; few of them, so that addresses meet in one, and now and then one that does not exist.
fn slot(rng: &mut Rng) -> u32 {
    let odd = [0, 63, 64, u32::MAX];
    match rng.chance(80_000) {
        true => rng.pick(&odd).copied().unwrap_or_default(),
        false => rng.within(1..=3) as u32,
    }
}

fn deadline(rng: &mut Rng, armed: &[Mono], now: Mono, lease: Duration) -> Mono {
    let lately = &armed[armed.len().saturating_sub(6)..];
    match rng.below(10) {
        0 => Mono::ZERO,
        1 => now + Duration::from_nanos(rng.below(lease.as_nanos() as u64)),
        2 => Mono(now.0.saturating_sub(rng.below(1_000))),
        3 => now + lease,
        _ => rng.pick(lately).copied().unwrap_or(now + lease),
    }
}

/// The model and the gate keep the same books.
pub fn same_books(model: &Model, gate: &dyn RealGate) -> Result<(), String> {
    let rows = gate.list().expect("list");
    let real: Vec<_> = rows
        .iter()
        .map(|row| (row.address, row.slot.unwrap_or(0), row.inherited))
        .collect();
    let expected: Vec<_> = model.managed().collect();
    if real != expected {
        return Err(format!("the gate manages {real:?}, the model {expected:?}"));
    }
    Ok(())
}
