//! Planted bugs of the fence: the trials at the fault points must see them.

use std::sync::OnceLock;

/// Environment variable with the name of a bug.
pub const PLANT_VARIABLE: &str = "BUOY_PLANT";

/// A bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// The gate is on no interface, and says that it is.
    NeverArmed,
    /// Deadlines are the time at which they are stored plus the lease.
    RelativeDeadline,
    /// A VIP that goes down is released first, and shut only with the next tick.
    ReleaseBeforeShut,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 3] = [
        Plant::NeverArmed,
        Plant::RelativeDeadline,
        Plant::ReleaseBeforeShut,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Plant::NeverArmed => "never-armed",
            Plant::RelativeDeadline => "relative-deadline",
            Plant::ReleaseBeforeShut => "release-before-shut",
        }
    }
}

/// Does this process have the bug?
pub fn planted(plant: Plant) -> bool {
    static PLANTED: OnceLock<Option<Plant>> = OnceLock::new();
    let planted = PLANTED.get_or_init(|| {
        let name = std::env::var(PLANT_VARIABLE).ok()?;
        let known = Plant::ALL.into_iter().find(|plant| plant.name() == name);
        Some(known.unwrap_or_else(|| panic!("{PLANT_VARIABLE} names no bug: {name}")))
    });
    *planted == Some(plant)
}
