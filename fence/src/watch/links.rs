//! The interfaces as last heard of, and what each notice about them means.

use std::collections::BTreeMap;

use crate::link::Link;

use super::KernelEvent;

/// Interfaces by index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct LinkTable {
    links: BTreeMap<u32, Link>,
}

impl LinkTable {
    /// The interface with that index.
    pub(crate) fn get(&self, ifindex: u32) -> Option<&Link> {
        self.links.get(&ifindex)
    }

    /// The interface of that name.
    pub(crate) fn named(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }

    /// Takes over a whole picture; what differs from what was known is told as if it had been noticed.
    pub(crate) fn replace(&mut self, links: BTreeMap<u32, Link>, events: &mut Vec<KernelEvent>) {
        let gone: Vec<_> = self
            .links
            .keys()
            .filter(|i| !links.contains_key(i))
            .copied()
            .collect();
        for ifindex in gone {
            self.gone(ifindex, events);
        }
        for link in links.into_values() {
            self.noticed(link, events);
        }
    }

    /// An interface is new or changed.
    pub(crate) fn noticed(&mut self, mut link: Link, events: &mut Vec<KernelEvent>) {
        let ifindex = link.index;
        let before = self.links.get(&ifindex);
        if let Some(before) = before {
            // Notices of some drivers leave out what did not change.
            if link.name.is_empty() {
                link.name.clone_from(&before.name);
            }
            link.mac = link.mac.or(before.mac);
            if link.name != before.name {
                events.push(KernelEvent::LinkRenamed {
                    ifindex,
                    from: before.name.clone(),
                    to: link.name.clone(),
                });
            }
            if link.mac != before.mac {
                events.push(KernelEvent::LinkMacChanged {
                    ifindex,
                    name: link.name.clone(),
                    mac: link.mac,
                });
            }
        }
        let was = before.map(|before| (before.up, before.carrier));
        if was != Some((link.up, link.carrier)) {
            let name = link.name.clone();
            let usable = before.is_some_and(Link::usable);
            if link.usable() {
                events.push(KernelEvent::LinkUp { ifindex, name });
            } else if usable || before.is_none_or(|before| before.up != link.up) {
                events.push(KernelEvent::LinkDown {
                    ifindex,
                    name,
                    up: link.up,
                    usable_before: usable,
                });
            }
        }
        self.links.insert(ifindex, link);
    }

    /// An interface is gone.
    pub(crate) fn gone(&mut self, ifindex: u32, events: &mut Vec<KernelEvent>) {
        if let Some(Link { name, .. }) = self.links.remove(&ifindex) {
            events.push(KernelEvent::LinkGone { ifindex, name });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, up: bool, carrier: bool) -> Link {
        Link {
            index,
            name: name.to_owned(),
            mac: Some([2, 0, 0, 0, 0, 1]),
            up,
            carrier,
            mtu: 1500,
            arphrd: 1,
            xdp: false,
        }
    }

    fn after(table: &mut LinkTable, link: Link) -> Vec<KernelEvent> {
        let mut events = Vec::new();
        table.noticed(link, &mut events);
        events
    }

    #[test]
    fn each_change_is_told_once() {
        let mut table = LinkTable::default();
        let name = || "eth0".to_owned();
        let down = |up, usable_before| KernelEvent::LinkDown {
            ifindex: 2,
            name: name(),
            up,
            usable_before,
        };
        let up = || KernelEvent::LinkUp {
            ifindex: 2,
            name: name(),
        };
        assert_eq!(
            after(&mut table, link(2, "eth0", false, false)),
            [down(false, false)]
        );
        assert_eq!(after(&mut table, link(2, "eth0", false, false)), []);
        assert_eq!(
            after(&mut table, link(2, "eth0", true, false)),
            [down(true, false)]
        );
        assert_eq!(after(&mut table, link(2, "eth0", true, true)), [up()]);
        assert_eq!(after(&mut table, link(2, "eth0", true, true)), []);
        assert_eq!(
            after(&mut table, link(2, "eth0", true, false)),
            [down(true, true)]
        );
        let mut moved = link(2, "lan", true, false);
        moved.mac = Some([2, 0, 0, 0, 0, 9]);
        let renamed = KernelEvent::LinkRenamed {
            ifindex: 2,
            from: name(),
            to: "lan".to_owned(),
        };
        let mac = KernelEvent::LinkMacChanged {
            ifindex: 2,
            name: "lan".to_owned(),
            mac: moved.mac,
        };
        assert_eq!(after(&mut table, moved.clone()), [renamed, mac]);
        // A notice without name and address changes neither.
        let mut short = link(2, "", true, false);
        short.mac = None;
        assert_eq!(after(&mut table, short), []);
        assert_eq!(table.named("lan"), Some(&moved));
    }

    #[test]
    fn a_whole_picture_tells_what_was_missed() {
        let mut table = LinkTable::default();
        after(&mut table, link(2, "eth0", true, true));
        after(&mut table, link(3, "eth1", true, true));
        let mut events = Vec::new();
        // eth0 was made anew: another index.
        let now = [link(3, "eth1", true, true), link(9, "eth0", true, true)];
        table.replace(now.into_iter().map(|l| (l.index, l)).collect(), &mut events);
        let name = "eth0".to_owned();
        let gone = KernelEvent::LinkGone {
            ifindex: 2,
            name: name.clone(),
        };
        assert_eq!(events, [gone, KernelEvent::LinkUp { ifindex: 9, name }]);
        assert_eq!(
            (table.get(2), table.named("eth0").map(|l| l.index)),
            (None, Some(9))
        );
    }
}
