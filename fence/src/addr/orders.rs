//! What the keeper is told to do: add addresses, remove them, clean up after a predecessor.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::actor::{Entry, Keeper};
use super::error::{Action, AddressError};
use super::kernel::{Answers, Told, Write};
use super::{AddressSpec, Cleanup, LABEL_MAX, Leftover};

/// An address of an order, its place in the order, and the interface that it goes to.
#[derive(Clone, Copy)]
struct Placed<'a> {
    at: usize,
    spec: &'a AddressSpec,
    ifindex: u32,
}

impl Keeper {
    pub(super) fn add(&mut self, specs: Vec<AddressSpec>) -> Vec<Result<(), AddressError>> {
        let unknown = |spec: &AddressSpec| !self.links.named(&spec.interface).is_some_and(|l| l.up);
        if specs.iter().any(unknown) {
            // A notice may be on its way.
            self.look_at_links();
        }
        let mut results = Vec::new();
        let mut placed = Vec::new();
        for (at, spec) in specs.iter().enumerate() {
            let place = self.place(spec);
            placed.extend(
                place
                    .as_ref()
                    .ok()
                    .map(|&ifindex| Placed { at, spec, ifindex }),
            );
            results.push(place.map(drop));
        }
        let same = |placed: &Placed<'_>| {
            let entry = self.entries.get(&placed.spec.ip);
            entry.is_some_and(|e| e.spec == *placed.spec && e.ifindex == placed.ifindex)
        };
        let (same, other): (Vec<_>, Vec<_>) = placed.into_iter().partition(same);
        let refreshed = self.write(Write::Refresh, &same);
        let added = self.write_new(&other);

        let outcomes = same.into_iter().zip(refreshed);
        for (Placed { at, spec, ifindex }, outcome) in outcomes.chain(other.into_iter().zip(added))
        {
            let (ip, entry) = (
                spec.ip,
                Entry {
                    spec: spec.clone(),
                    ifindex,
                },
            );
            results[at] = match outcome {
                Ok(()) => {
                    self.leaving.remove(&ip);
                    self.entries.insert(ip, entry);
                    Ok(())
                }
                Err(told) => {
                    if told.is_unknown() && !self.entries.contains_key(&ip) {
                        self.leaving.insert(ip, entry);
                    }
                    Err(told.error(Action::Add, spec))
                }
            };
        }
        results
    }

    fn write(&mut self, how: Write, all: &[Placed<'_>]) -> Answers {
        self.kernel
            .write(how, all.iter().map(|p| (p.spec, p.ifindex)))
    }

    /// Adds addresses that are not there as they should be; what is in their way goes.
    fn write_new(&mut self, all: &[Placed<'_>]) -> Answers {
        let changed = all.iter().map(|p| p.spec.ip).collect();
        for error in self.remove(changed).into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "an address that is to change could not be removed first");
        }
        let mut answers = self.write(Write::New, all);
        let in_the_way = |answer: &Result<(), Told>| answer.as_ref().is_err_and(Told::is_there);
        let again: Vec<_> = (0..all.len())
            .filter(|at| in_the_way(&answers[*at]))
            .collect();
        if again.is_empty() {
            return answers;
        }
        // Somebody else's, with another label, scope or lifetime.
        let blocked: Vec<_> = again.iter().map(|at| all[*at]).collect();
        let ips: BTreeSet<_> = blocked.iter().map(|p| p.spec.ip).collect();
        let second = match self.kernel.addresses() {
            Ok(mut found) => {
                found.retain(|a| ips.contains(&a.ip));
                // Whatever could not be removed is written over.
                self.kernel.delete_found(found.iter());
                self.put_back_secondaries(found.iter().map(|a| (a.ip, a.prefix, a.ifindex)));
                self.write(Write::Refresh, &blocked)
            }
            Err(e) => vec![Err(Told::Failed(e.to_string())); blocked.len()],
        };
        for (at, answer) in again.into_iter().zip(second) {
            answers[at] = answer;
        }
        answers
    }

    /// The interface that an address goes to, if it may be added now.
    fn place(&self, spec: &AddressSpec) -> Result<u32, AddressError> {
        let (ip, interface) = (spec.ip, spec.interface.clone());
        if !self.shared.is_held(ip) {
            return Err(AddressError::Withdrawn { ip, interface });
        }
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let label = spec.label.as_deref().filter(|_| ip.is_ipv4());
        let problem = if !(1..=bits).contains(&spec.prefix) {
            Some(format!(
                "its prefix length is {}, expected 1 to {bits}",
                spec.prefix
            ))
        } else if label.is_some_and(|l| l.is_empty() || l.len() > LABEL_MAX || l.contains('\0')) {
            Some(format!(
                "its label {label:?} has not 1 to {LABEL_MAX} bytes"
            ))
        } else {
            None
        };
        if let Some(problem) = problem {
            return Err(AddressError::Invalid {
                ip,
                interface,
                problem,
            });
        }
        match self.links.named(&interface) {
            None => Err(AddressError::NoInterface { ip, interface }),
            Some(link) if !link.up => Err(AddressError::InterfaceDown { ip, interface }),
            Some(link) if !(self.shared.gated)(link.index) => {
                Err(AddressError::NoGate { ip, interface })
            }
            Some(link) => Ok(link.index),
        }
    }

    pub(super) fn remove(&mut self, ips: Vec<IpAddr>) -> Vec<Result<(), AddressError>> {
        ips.iter().for_each(|ip| self.absent.settled(*ip));
        let mut take = |ip| {
            let entry = self.entries.remove(ip);
            entry.or_else(|| self.leaving.remove(ip))
        };
        let entries: Vec<_> = ips.iter().map(&mut take).collect();
        let held = entries.iter().flatten();
        let all: Vec<_> = held
            .map(|e| (e.spec.ip, e.spec.prefix, e.ifindex))
            .collect();
        let mut answers = self.kernel.delete(all.iter().copied()).into_iter();
        self.put_back_secondaries(all.into_iter());
        let mut outcome = |entry: Entry| match answers.next() {
            Some(Err(told)) if !told.is_absent() => {
                let error = told.error(Action::Remove, &entry.spec);
                self.leaving.insert(entry.spec.ip, entry);
                Err(error)
            }
            _ => Ok(()),
        };
        let outcomes = entries
            .into_iter()
            .map(|entry| entry.map_or(Ok(()), &mut outcome));
        outcomes.collect()
    }

    /// With a primary IPv4 address the kernel takes the other addresses of the same network and interface away, unless
    /// `promote_secondaries` is set; and it tells nobody but who asked. What is held of these is written again.
    pub(super) fn put_back_secondaries(
        &mut self,
        removed: impl Iterator<Item = (IpAddr, u8, u32)>,
    ) {
        let networks: BTreeSet<_> = removed
            .filter_map(|(ip, prefix, ifindex)| Some((network(ip, prefix)?, prefix, ifindex)))
            .collect();
        if networks.is_empty() {
            return;
        }
        let beside = |e: &&Entry| {
            let network = network(e.spec.ip, e.spec.prefix);
            let there = network.map(|n| (n, e.spec.prefix, e.ifindex));
            there.is_some_and(|n| networks.contains(&n)) && self.shared.may_keep(e.spec.ip)
        };
        let entries: Vec<Entry> = self.entries.values().filter(beside).cloned().collect();
        let all = entries.iter().map(|e| (&e.spec, e.ifindex));
        let answers = self.kernel.write(Write::Refresh, all);
        for (entry, answer) in entries.iter().zip(answers) {
            if let Err(told) = answer {
                let error = told.error(Action::Add, &entry.spec);
                tracing::warn!(%error, "a held address may have gone with another one of its network");
            }
        }
    }

    pub(super) fn cleanup(&mut self) -> Cleanup {
        let mut cleanup = Cleanup::default();
        let snapshot = match self.kernel.snapshot() {
            Ok(snapshot) => snapshot,
            Err(e) => {
                let problem = e.to_string();
                cleanup.failed.push(AddressError::Unreadable { problem });
                return cleanup;
            }
        };
        let mut found = snapshot.addresses.clone();
        found.retain(|a| self.is_foreign(a));
        let answers = self.kernel.delete_found(found.iter());
        for (a, answer) in found.iter().zip(answers) {
            let (ip, prefix, interface) = (a.ip, a.prefix, snapshot.name(a.ifindex));
            match answer {
                Ok(()) => cleanup.removed.push(Leftover {
                    ip,
                    prefix,
                    interface,
                }),
                Err(told) if told.is_absent() => {}
                Err(told) => {
                    let error = told.error_for(Action::Remove, ip, prefix, interface);
                    cleanup.failed.push(error);
                }
            }
        }
        cleanup
    }
}

/// The network of an IPv4 address that can share it with others; `None` for host addresses and IPv6.
fn network(ip: IpAddr, prefix: u8) -> Option<u32> {
    match ip {
        IpAddr::V4(ip) if (1..32).contains(&prefix) => {
            Some(Ipv4Addr::to_bits(ip) & (u32::MAX << (32 - u32::from(prefix))))
        }
        _ => None,
    }
}
