//! What follows from what was heard: who is master, and whom the group has to let be.

use std::net::IpAddr;

use buoy_core::Mono;

use super::super::Standing;
use super::super::outsiders::Outsider;
use super::Router;

impl Router {
    pub(super) fn group_lasts(&self) -> Mono {
        self.now + self.settings.down(self.settings.interval)
    }

    /// By what this node sends or others of the group have sent.
    pub(super) fn group_is_master(&self) -> bool {
        self.active.is_some() || self.member.is_some_and(|until| until > self.now)
    }

    /// RFC 9568 section 6.4.3, as the holder sees it.
    pub(super) fn outranks(&self, from: IpAddr, priority: u8) -> bool {
        let ours = self.settings.priority;
        priority > ours || priority == ours && self.source.is_some_and(|source| from > source)
    }

    pub(super) fn patience_ends(&self) -> Option<Mono> {
        Some(self.kept_since? + self.settings.patience()?)
    }

    /// RFC 9568 section 6.4.2: a Backup stays one as long as it hears a master of equal priority, or of
    /// lower priority that it does not preempt.
    fn keeps_out(&self, outsider: &Outsider) -> bool {
        let patient = || self.patience_ends().is_none_or(|end| end > self.now);
        outsider.seated && (outsider.priority >= self.settings.priority || patient())
    }

    pub(super) fn judge(&self) -> Standing {
        if self.listening.is_none() {
            return Standing::Deaf;
        }
        let best = self
            .outsiders
            .best(|o| self.outranks(o.from, o.priority) || self.keeps_out(o));
        match (best, self.unsure) {
            (Some(o), _) => Standing::Outranked {
                by: o.from,
                priority: o.priority,
            },
            (None, Some(until)) => Standing::Unsure { until },
            (None, None) => Standing::Clear,
        }
    }
}
