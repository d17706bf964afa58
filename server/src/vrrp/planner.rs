//! Follows the applied state and the interfaces for the VRRP thread, which runs ahead of all others and must not do work that
//! grows with the number of VIPs.

use std::sync::Arc;
use std::time::Duration;

use buoy_core::spec::NodeSpec;
use buoy_fence::link::Links;
use buoy_storage::StateReader;
use tokio::sync::{Notify, watch};
use tracing::error;

use super::plan::{Plan, plan};

/// Interfaces are looked at this often, whatever happens.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Wait after a look: many entries that are applied one after the other are one change.
const SETTLE: Duration = Duration::from_millis(10);

/// What is to be played.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Planned {
    /// All routers.
    pub plan: Plan,
    /// The history that the group shares; members know each other by it.
    pub history_id: u64,
}

/// Runs for ever.
pub async fn follow(
    me: NodeSpec,
    reader: StateReader,
    (links, look_anew): (Links, Arc<Notify>),
    plans: watch::Sender<Arc<Planned>>,
) {
    let mut applied = reader.subscribe();
    let mut last = Planned::default();
    loop {
        applied.borrow_and_update();
        if let Some(planned) = look(&me, &reader, &links, &last)
            && planned != last
        {
            last = planned.clone();
            plans.send_replace(Arc::new(planned));
        }
        tokio::time::sleep(SETTLE).await;
        tokio::select! {
            changed = applied.changed() => if changed.is_err() { return },
            () = look_anew.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// `None`: as before.
fn look(me: &NodeSpec, reader: &StateReader, links: &Links, last: &Planned) -> Option<Planned> {
    let faced = |r: &StateReader| r.read().vips.values().any(|v| v.spec.vrrp.is_some());
    if last.plan.routers.is_empty() && !faced(reader) {
        return None;
    }
    let snapshot = match tokio::task::block_in_place(|| links.snapshot()) {
        Ok(snapshot) => snapshot,
        Err(e) => {
            error!("VRRP stays as it is, the interfaces cannot be listed: {e}");
            return None;
        }
    };
    let state = reader.read();
    Some(Planned {
        plan: plan(me, &state, &snapshot),
        history_id: state.history_id,
    })
}
