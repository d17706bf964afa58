//! What a simulated run consists of: sizes, faults, planted bugs.

use std::fmt;
use std::str::FromStr;

use super::gate::Kind;
use super::rng::Rng;

/// A bug that can be planted into a driver or the messages, to see that the checks find it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Bug {
    /// A restarted voter makes promises at once.
    NoQuarantine,
    /// The gate is open for `L` after an answer came, instead of after the renewal was sent.
    CountedFromReceipt,
    /// The same for pushed answers only.
    CountedFromPush,
    /// A live promise is extended though the voter's log supersedes it.
    GrantBeforeSuperseded,
    /// A voter takes renewals in whatever order they come.
    StaleSeq,
    /// A session claims an epoch again that it has released.
    EpochAgain,
    /// `L_voter = L`.
    NoMargin,
    /// Learners grant, and are counted.
    LearnersCount,
    /// The gate gets the time that was left when the deadline was computed.
    RelativeGate,
    /// A node claims what its log says, applied or not.
    ClaimsUnapplied,
    /// The leader proposes the next membership as soon as the last one is committed.
    NoMembershipWait,
    /// The voter judges by the view that it was last told of, not by the one in force at the renewal.
    StaleView,
    /// The claim goes before the gate is shut.
    ReleasedBeforeShut,
    /// Longer promises are made before the disk knows of them.
    PromisesBeforeDisk,
    /// To lower the longest promise is taken for done at once, and the disk writes in any order.
    UnorderedDisk,
    /// The addresses are added before the gate is open for them.
    AddressBeforeGate,
    /// The neighbours are told of addresses that are not there yet.
    AnnounceBeforeAddress,
    /// Voters judge whatever membership a renewal names, and holders count the answers.
    ConfigIgnored,
    /// A voter promises what its own log does not hold yet.
    UnheardGranted,
    /// Addresses stay on the interface for the next epoch, and the holder is not told.
    KeptUnsaid,
    /// A node whose gate is late by nature names the lease that it counts.
    GateMarginUnnamed,
    /// The kernel begins to count a round when it is answered, with the time that was left when the deadline was computed.
    ArmedAfterAnswer,
    /// A deadline whose own round was not armed rests on the newest one.
    AdvanceUnarmed,
    /// A renewal may be armed by a later one of the same round, after it has left; and the kernel refuses every second time.
    ArmedAgain,
    /// Addresses open by slots whose deadlines the gate refused to move.
    RefusedAdvanceOpens,
    /// A new process takes its predecessor's gate over as it is: addresses rest on slots that mean something else now.
    RestartKeepsSlots,
    /// The gate no longer fences addresses that are still on the interface.
    ForgottenWhileHeld,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 27] = [
        Bug::NoQuarantine,
        Bug::CountedFromReceipt,
        Bug::CountedFromPush,
        Bug::GrantBeforeSuperseded,
        Bug::StaleSeq,
        Bug::EpochAgain,
        Bug::NoMargin,
        Bug::LearnersCount,
        Bug::RelativeGate,
        Bug::ClaimsUnapplied,
        Bug::NoMembershipWait,
        Bug::StaleView,
        Bug::ReleasedBeforeShut,
        Bug::PromisesBeforeDisk,
        Bug::UnorderedDisk,
        Bug::AddressBeforeGate,
        Bug::AnnounceBeforeAddress,
        Bug::ConfigIgnored,
        Bug::UnheardGranted,
        Bug::KeptUnsaid,
        Bug::GateMarginUnnamed,
        Bug::ArmedAfterAnswer,
        Bug::AdvanceUnarmed,
        Bug::ArmedAgain,
        Bug::RefusedAdvanceOpens,
        Bug::RestartKeepsSlots,
        Bug::ForgottenWhileHeld,
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Bug::NoQuarantine => "no-quarantine",
            Bug::CountedFromReceipt => "counted-from-receipt",
            Bug::CountedFromPush => "counted-from-push",
            Bug::GrantBeforeSuperseded => "grant-before-superseded",
            Bug::StaleSeq => "stale-seq",
            Bug::EpochAgain => "epoch-again",
            Bug::NoMargin => "no-margin",
            Bug::LearnersCount => "learners-count",
            Bug::RelativeGate => "relative-gate",
            Bug::ClaimsUnapplied => "claims-unapplied",
            Bug::NoMembershipWait => "no-membership-wait",
            Bug::StaleView => "stale-view",
            Bug::ReleasedBeforeShut => "released-before-shut",
            Bug::PromisesBeforeDisk => "promises-before-disk",
            Bug::UnorderedDisk => "unordered-disk",
            Bug::AddressBeforeGate => "address-before-gate",
            Bug::AnnounceBeforeAddress => "announce-before-address",
            Bug::ConfigIgnored => "config-ignored",
            Bug::UnheardGranted => "unheard-granted",
            Bug::KeptUnsaid => "kept-unsaid",
            Bug::GateMarginUnnamed => "gate-margin-unnamed",
            Bug::ArmedAfterAnswer => "armed-after-answer",
            Bug::AdvanceUnarmed => "advance-unarmed",
            Bug::ArmedAgain => "armed-again",
            Bug::RefusedAdvanceOpens => "refused-advance-opens",
            Bug::RestartKeepsSlots => "restart-keeps-slots",
            Bug::ForgottenWhileHeld => "forgotten-while-held",
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Bug {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let names = || Bug::ALL.map(Bug::name).join(", ");
        let found = Bug::ALL.into_iter().find(|b| b.name() == s);
        found.ok_or_else(|| format!("no bug is called {s:?}; there are: {}", names()))
    }
}

/// Which invariant was violated.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    /// One address passes packets on at most one node.
    S1,
    /// Epochs only grow.
    S2,
    /// No deadline is later than the promises that it rests on.
    S3,
    /// Gate before address before announcement; the reverse, and then the release, going down.
    S4,
    /// No lease that was counted under a membership outlives the wait after the next one; no promise
    /// outlives the silence of its voter after a restart.
    S6,
    /// Rules of the voter and the holder that show in what they do (superseded promises are not
    /// extended, only committed assignments are claimed, and none twice).
    Rule,
    /// After the faults are healed every VIP comes up in time.
    L1,
    /// Without faults nothing moves.
    L2,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Invariant; 8] = [
        Invariant::S1,
        Invariant::S2,
        Invariant::S3,
        Invariant::S4,
        Invariant::S6,
        Invariant::Rule,
        Invariant::L1,
        Invariant::L2,
    ];
}

impl FromStr for Invariant {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let found = Invariant::ALL
            .into_iter()
            .find(|i| format!("{i:?}").eq_ignore_ascii_case(s));
        found.ok_or_else(|| {
            format!(
                "no invariant is called {s:?}; there are: {:?}",
                Invariant::ALL
            )
        })
    }
}

/// Which faults happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Faults {
    /// Messages are lost, repeated, delayed and swapped; links are cut.
    pub network: bool,
    /// Processes and hosts crash and restart.
    pub crashes: bool,
    /// Processes are stopped for a while, anywhere between two steps.
    pub pauses: bool,
    /// Memberships change.
    pub memberships: bool,
    /// VIPs are moved and edited by operators; nodes give VIPs up.
    pub operations: bool,
    /// Lease lengths differ between runs of the daemon.
    pub lease_lengths: bool,
}

impl Faults {
    /// Everything.
    pub const ALL: Faults = Faults {
        network: true,
        crashes: true,
        pauses: true,
        memberships: true,
        operations: true,
        lease_lengths: true,
    };
    /// Nothing.
    pub const NONE: Faults = Faults {
        network: false,
        crashes: false,
        pauses: false,
        memberships: false,
        operations: false,
        lease_lengths: false,
    };
}

/// A run in which one thing goes wrong at the worst moment, instead of random faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// A node dies for good; nobody may be dark for longer than the rest of its lease and what a
    /// message takes, whatever else is appended to the log meanwhile.
    Takeover,
    /// A daemon begins to count a longer lease on slow disks, and its voters restart as soon as it
    /// holds something.
    LongerLease,
    /// All daemons were restarted with a shorter lease, and their disks are slow to forget the longer one.
    /// One begins to count the longer lease again, and its voters restart some time after it holds something.
    ShorterLease,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which faults happen.
    pub faults: Faults,
    /// Length of the time with faults, milliseconds of true time.
    pub chaos_ms: u64,
    /// A directed run; without, faults come at random.
    pub scenario: Option<Scenario>,
    /// The kind of all gates; without, each node's is drawn.
    pub gates: Option<Kind>,
    /// The planted bug.
    pub bug: Option<Bug>,
    /// Invariants that are checked; others are not looked at.
    pub checked: Vec<Invariant>,
    /// Keep the last lines of what happened, for a violation's report.
    pub trace: bool,
}

impl Config {
    /// The kind of a gate: half of them are of each, unless one was chosen.
    pub fn gate(&self, rng: &mut Rng) -> Kind {
        match self.gates {
            Some(kind) => kind,
            None if rng.chance(500_000) => Kind::Timed,
            None => Kind::Exact,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            faults: Faults::ALL,
            chaos_ms: 6_000,
            scenario: None,
            gates: None,
            bug: None,
            checked: Invariant::ALL.to_vec(),
            trace: false,
        }
    }
}
