//! What is done to a cluster while it is watched.

use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::bed::{Bed, Contender, VIP, Want};
use super::measure::{Sample, Watch};
use crate::sys::clock::now_ns;
use crate::topology::CLIENT;

/// What is done in one turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Nothing: shows what the machine's own noise does to the figures.
    Quiet,
    /// The operator moves the VIP to the other member.
    Move,
    /// SIGTERM to the owner's daemon.
    Term,
    /// SIGKILL to all processes of the owner's daemon; its machine lives on.
    Kill,
    /// Cable and processes of the owner at once; the owner is not the Raft leader.
    Crash,
    /// The same, and the owner is the Raft leader.
    CrashLeader,
    /// The owner alone with the client, then healed.
    PartitionWith,
    /// The owner alone, the client with the others, then healed.
    PartitionWithout,
    /// Cable and processes of the Raft leader, which owns nothing.
    LeaderLoss,
}

/// A row of the table of results.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Row {
    /// [`Event::Quiet`].
    Quiet,
    /// [`Event::Move`].
    Move,
    /// [`Event::Term`].
    Term,
    /// [`Event::Kill`].
    Kill,
    /// [`Event::Crash`].
    Crash,
    /// [`Event::CrashLeader`].
    CrashLeader,
    /// [`Event::PartitionWith`], until it is healed.
    PartitionWith,
    /// [`Event::PartitionWith`], from the healing on.
    HealWith,
    /// [`Event::PartitionWithout`], until it is healed.
    PartitionWithout,
    /// [`Event::PartitionWithout`], from the healing on.
    HealWithout,
    /// [`Event::LeaderLoss`].
    LeaderLoss,
}

impl Row {
    /// All, in the order of the table.
    pub const ALL: [Self; 11] = [
        Self::Move,
        Self::Term,
        Self::Kill,
        Self::Crash,
        Self::CrashLeader,
        Self::PartitionWithout,
        Self::HealWithout,
        Self::PartitionWith,
        Self::HealWith,
        Self::LeaderLoss,
        Self::Quiet,
    ];

    /// What it is called in the table.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Quiet => "nothing happens (noise of the machine)",
            Self::Move => "planned move",
            Self::Term => "SIGTERM of the owner's daemon",
            Self::Kill => "SIGKILL of the owner's daemon, host lives",
            Self::Crash => "node crash, owner does not lead",
            Self::CrashLeader => "node crash, owner is the Raft leader",
            Self::PartitionWith => "partition, client with the owner",
            Self::HealWith => "... and when it heals",
            Self::PartitionWithout => "partition, client with the others",
            Self::HealWithout => "... and when it heals",
            Self::LeaderLoss => "crash of the Raft leader that owns nothing",
        }
    }
}

impl Event {
    /// All, in the order in which they are done.
    pub const ALL: [Self; 9] = [
        Self::Quiet,
        Self::Move,
        Self::Term,
        Self::Kill,
        Self::Crash,
        Self::CrashLeader,
        Self::PartitionWith,
        Self::PartitionWithout,
        Self::LeaderLoss,
    ];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Move => "move",
            Self::Term => "term",
            Self::Kill => "kill",
            Self::Crash => "crash",
            Self::CrashLeader => "crash-leader",
            Self::PartitionWith => "partition-with",
            Self::PartitionWithout => "partition-without",
            Self::LeaderLoss => "leader",
        }
    }

    /// Whether there is such a thing for this contender.
    #[must_use]
    pub fn applies(self, contender: Contender) -> bool {
        contender == Contender::Buoy || !matches!(self, Self::CrashLeader | Self::LeaderLoss)
    }

    fn want(self) -> Want {
        match self {
            Self::CrashLeader => Want::OwnerLeads,
            Self::Crash | Self::LeaderLoss => Want::OwnerFollows,
            _ => Want::Any,
        }
    }

    /// For how long the client is watched after it.
    fn window(self, contender: Contender) -> Duration {
        Duration::from_millis(match self {
            Self::Quiet => 1_000,
            _ if contender.is_slow() => 5_000,
            _ => 2_000,
        })
    }

    /// For how long the client is watched after a partition has healed.
    fn heal_window(contender: Contender) -> Duration {
        Duration::from_millis(if contender.is_slow() { 7_000 } else { 3_000 })
    }

    /// For how long the client is watched altogether.
    #[must_use]
    pub fn watched(self, contender: Contender) -> Duration {
        let healed = match self {
            Self::PartitionWith | Self::PartitionWithout => Self::heal_window(contender),
            _ => Duration::ZERO,
        };
        self.window(contender) + healed
    }

    /// Does it once and returns what was seen.
    ///
    /// # Errors
    /// The cluster does not get ready, before it or after it, or something cannot be done or watched.
    pub fn run(self, bed: &Bed) -> Result<Vec<Sample>> {
        let before = bed.prepare(self.want())?;
        let window = self.window(bed.contender);
        let mut watch = Watch::start(bed, before.clone())?;
        let owner = before.owner.as_str();
        let mut samples = Vec::new();
        match self {
            Self::Quiet => samples.push(watch.sample(Row::Quiet, now_ns(), window)?),
            Self::Move => {
                let at = move_away(bed, owner, &before.other)?;
                samples.push(watch.sample(Row::Move, at, window)?);
            }
            Self::Term => {
                let at = signal(bed, owner, libc::SIGTERM)?;
                samples.push(watch.sample(Row::Term, at, window)?);
                bed.wait_stopped(owner)?;
            }
            Self::Kill => {
                let at = signal(bed, owner, libc::SIGKILL)?;
                samples.push(watch.sample(Row::Kill, at, window)?);
                bed.wait_stopped(owner)?;
            }
            Self::Crash => {
                let at = bed.lab.crash(owner)?;
                samples.push(watch.sample(Row::Crash, at, window)?);
            }
            Self::CrashLeader => {
                let at = bed.lab.crash(owner)?;
                samples.push(watch.sample(Row::CrashLeader, at, window)?);
            }
            Self::LeaderLoss => {
                let at = bed
                    .lab
                    .crash(before.leader.as_deref().unwrap_or_default())?;
                samples.push(watch.sample(Row::LeaderLoss, at, window)?);
            }
            Self::PartitionWith => {
                let groups = [vec![owner, CLIENT], vec![&before.other, "n3"]];
                let rows = (Row::PartitionWith, Row::HealWith);
                samples = partition(bed, &mut watch, &groups, rows, window)?;
            }
            Self::PartitionWithout => {
                let groups = [vec![owner], vec![&before.other, "n3", CLIENT]];
                let rows = (Row::PartitionWithout, Row::HealWithout);
                samples = partition(bed, &mut watch, &groups, rows, window)?;
            }
        }
        drop(watch);
        bed.recover()?;
        Ok(samples)
    }
}

/// Buoy has a command. keepalived has none: its master's priority is lowered and the file read again.
fn move_away(bed: &Bed, owner: &str, other: &str) -> Result<u64> {
    let at = now_ns();
    if bed.contender == Contender::Buoy {
        bed.lab.backend().move_vip(&bed.lab, VIP, other)?;
    } else {
        bed.demote(owner)?;
    }
    Ok(at)
}

fn signal(bed: &Bed, node: &str, signal: i32) -> Result<u64> {
    let mut processes = bed.daemons(node)?;
    if signal == libc::SIGTERM {
        // The main process tells its children itself.
        let main = bed.lab.daemon(node)?.map(|process| process.id());
        processes.retain(|process| Some(process.id()) == main);
    }
    if signal == libc::SIGKILL {
        // keepalived's processes end in good order when they see their parent die; stopped ones do not.
        for process in &processes {
            process.signal(libc::SIGSTOP)?;
        }
    }
    let at = now_ns();
    for process in &processes {
        process.signal(signal)?;
    }
    Ok(at)
}

fn partition(
    bed: &Bed,
    watch: &mut Watch<'_>,
    groups: &[Vec<&str>],
    (cut, heal): (Row, Row),
    window: Duration,
) -> Result<Vec<Sample>> {
    let groups: Vec<Vec<String>> = groups
        .iter()
        .map(|group| group.iter().map(|&name| name.to_owned()).collect())
        .collect();
    let at = bed.lab.switch().partition(&groups)?;
    let parted = watch.sample(cut, at, window)?;
    let at = bed.lab.switch().heal()?;
    let healed = watch.sample(heal, at, Event::heal_window(bed.contender))?;
    Ok(vec![parted, healed])
}
