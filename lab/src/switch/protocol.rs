//! What is said over the switch's control socket: one JSON object a line, one answer for each.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::observer::Observations;

/// Most ports of a switch.
pub const MAX_PORTS: usize = 16;
/// Longest request, bytes with the newline.
pub const MAX_REQUEST: usize = 64 * 1024;

/// What a switch is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SwitchSpec {
    /// Its ports, at most [`MAX_PORTS`].
    pub ports: Vec<PortSpec>,
    /// Seed of its faults.
    pub seed: u64,
}

/// One port: a TAP device inside a namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortSpec {
    /// Name of the port, which requests and reports use.
    pub name: String,
    /// Name of the network namespace that gets the device.
    pub netns: String,
    /// Name of the device there.
    pub interface: String,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// What goes wrong with a frame on its way.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Probability 0 to 1 that a frame is lost.
    pub loss: f64,
    /// Probability 0 to 1 that a frame arrives twice.
    pub duplicate: f64,
    /// Probability 0 to 1 that a frame is held back for up to [`REORDER_MS`], so that later ones overtake it.
    pub reorder: f64,
    /// Delay of every frame, ms.
    pub delay_ms: f64,
    /// Further random delay of each frame, 0 to this, ms. It reorders.
    pub jitter_ms: f64,
}

/// Longest extra delay of a reordered frame, ms.
pub const REORDER_MS: f64 = 5.0;
/// Largest delay and jitter, ms.
pub const MAX_DELAY_MS: f64 = 10_000.0;

impl Faults {
    /// Says what is wrong with the values, if anything.
    ///
    /// # Errors
    /// A probability outside 0 to 1, or a delay outside 0 to [`MAX_DELAY_MS`].
    pub fn check(&self) -> Result<(), String> {
        for (what, value, limit) in [
            ("loss", self.loss, 1.0),
            ("duplicate", self.duplicate, 1.0),
            ("reorder", self.reorder, 1.0),
            ("delay_ms", self.delay_ms, MAX_DELAY_MS),
            ("jitter_ms", self.jitter_ms, MAX_DELAY_MS),
        ] {
            if !(0.0..=limit).contains(&value) {
                return Err(format!("{what} is {value}, expected 0 to {limit}"));
            }
        }
        Ok(())
    }
}

/// A request to the switch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// How things stand. Answer: [`Response::State`].
    State,
    /// Plugs the cable of a port in or out. Frames stop at once, and the carrier follows within milliseconds.
    Cable {
        /// The port.
        port: String,
        /// Plugged in.
        up: bool,
    },
    /// Removes a port's device and makes it anew, cable pulled, in the namespace that has the name now:
    /// the machine was replaced or restarted. [`PortState::ready`] says when it is done.
    Renew {
        /// The port.
        port: String,
    },
    /// Cuts or joins the way from one port to another, this direction only. The carrier stays.
    Cut {
        /// Where frames come from; `None` is every port.
        from: Option<String>,
        /// Where they go; `None` is every port.
        to: Option<String>,
        /// Whether it is cut.
        cut: bool,
    },
    /// Replaces all cuts by these groups: ports of different groups do not reach each other. A port that is
    /// in no group reaches all.
    Partition {
        /// The groups; a port is in one at most.
        groups: Vec<Vec<String>>,
    },
    /// Sets what goes wrong on the way from one port to another.
    LinkFaults {
        /// Where frames come from; `None` is every port.
        from: Option<String>,
        /// Where they go; `None` is every port.
        to: Option<String>,
        /// The faults, in place of those that were set before.
        faults: Faults,
    },
    /// Sets what goes wrong with all that enters or leaves by a port, on top of the links' faults.
    PortFaults {
        /// The port; `None` is every port.
        port: Option<String>,
        /// The faults, in place of those that were set before.
        faults: Faults,
    },
    /// Ends every cut and all faults. Cables stay as they are.
    Heal,
    /// Starts the prober on these addresses (what it knew before is forgotten); none stops it.
    Observe {
        /// The addresses, at most [`crate::observer::MAX_TARGETS`].
        addresses: Vec<IpAddr>,
        /// Time between two probes of an address, microseconds, 200 to 1,000,000.
        interval_us: u64,
    },
    /// Who answers now. Answer: [`Response::Owners`].
    Owners,
    /// What was observed between two times (ns of CLOCK_BOOTTIME). Answer: [`Response::Observed`].
    Observed {
        /// Start.
        from: u64,
        /// End.
        to: u64,
    },
    /// Ends the switch.
    Shutdown,
}

/// The answer to a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// Done, and in force from this time on (ns of CLOCK_BOOTTIME).
    Done {
        /// When.
        at: u64,
    },
    /// It cannot be done, and why.
    Refused {
        /// Why.
        why: String,
    },
    /// Answer to [`Request::State`].
    State(State),
    /// Answer to [`Request::Owners`].
    Owners(Vec<Answering>),
    /// Answer to [`Request::Observed`].
    Observed(Observations),
}

/// How a switch stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Its ports, in their order.
    pub ports: Vec<PortState>,
    /// Cut directions: (from, to).
    pub cuts: Vec<(String, String)>,
    /// Links with faults: (from, to, faults).
    pub faults: Vec<(String, String, Faults)>,
    /// Frames held back at present.
    pub delayed: usize,
    /// Frames dropped because too many were held back.
    pub overflowed: u64,
    /// Whether it runs under SCHED_RR.
    pub realtime: bool,
}

/// How a port stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PortState {
    /// Its name.
    pub name: String,
    /// Cable plugged in.
    pub up: bool,
    /// Its device is there; false while it is made anew.
    pub ready: bool,
    /// Why its device could not be made anew.
    pub trouble: Option<String>,
    /// Frames received from the node.
    pub received: u64,
    /// Frames given to the node.
    pub sent: u64,
    /// Frames for or from the node that were lost: by a fault, a cut, or because it did not take them.
    pub lost: u64,
    /// Faults of the port.
    pub faults: Faults,
}

/// Who answered an address's latest probes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Answering {
    /// The address.
    pub address: IpAddr,
    /// Ports that answered one of the last ten probes.
    pub ports: Vec<String>,
}
