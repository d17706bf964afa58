//! VIPs that are granted and must not come up yet, each perhaps for several reasons.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use buoy_core::{Epoch, VipName};
use tokio::sync::mpsc::UnboundedSender;

use crate::lease::LeaseIn;

type Key = (VipName, Epoch);

/// Counts the reasons; the lease thread lets a VIP up when the last one is gone. Clones share the count.
#[derive(Clone)]
pub struct Holds {
    lease: UnboundedSender<LeaseIn>,
    reasons: Arc<Mutex<BTreeMap<Key, usize>>>,
}

impl Holds {
    /// Nothing is held back.
    pub fn new(lease: UnboundedSender<LeaseIn>) -> Holds {
        Holds {
            lease,
            reasons: Arc::default(),
        }
    }

    /// One more reason for each of these, to be said ahead of the view that assigns them. Of others nothing is
    /// known any more unless `assigned` says that they still are. False: the lease thread is gone.
    pub fn hold(&self, vips: Vec<Key>, assigned: impl Fn(&Key) -> bool) -> bool {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.retain(|key, _| assigned(key));
        for key in &vips {
            *reasons.entry(key.clone()).or_default() += 1;
        }
        vips.is_empty() || self.lease.send(LeaseIn::Withhold(vips)).is_ok()
    }

    /// One reason less.
    pub fn let_up(&self, (vip, epoch): Key) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (vip, epoch);
        match reasons.get_mut(&key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                reasons.remove(&key);
                // The lease thread is gone only when the daemon stops.
                let _ = self.lease.send(LeaseIn::LetUp { vip: key.0, epoch });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn a_vip_comes_up_when_its_last_reason_is_gone() {
        let (lease, mut told) = unbounded_channel();
        let holds = Holds::new(lease);
        let key = |epoch| ("web".parse::<VipName>().unwrap(), Epoch(epoch));
        let mut let_up = || match told.try_recv() {
            Ok(LeaseIn::LetUp { epoch, .. }) => Some(epoch.0),
            Ok(LeaseIn::Withhold(_)) | Err(_) => None,
            Ok(other) => panic!("{other:?}"),
        };
        assert!(holds.hold(vec![key(1)], |_| true));
        assert_eq!(let_up(), None);
        assert!(holds.hold(vec![key(1), key(2)], |_| true));
        assert_eq!(let_up(), None);
        holds.let_up(key(1));
        holds.let_up(key(2));
        assert_eq!(let_up(), Some(2));
        holds.let_up(key(1));
        assert_eq!(let_up(), Some(1));
        // An epoch that ended leaves nothing behind.
        assert!(holds.hold(vec![key(3)], |_| true));
        assert!(holds.hold(vec![], |k| *k != key(3)));
        assert!(holds.reasons.lock().unwrap().is_empty());
    }
}
