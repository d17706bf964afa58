//! Marks of the tests in the code: fault points and planted bugs. Without the feature `fault-points` nothing is left of them.

/// A place between two steps, at which a test may stop or kill the process (`fault::POINTS`).
#[cfg(feature = "fault-points")]
#[macro_export]
macro_rules! fault_point {
    ($name:literal) => {
        $crate::fault_point!($name, 0)
    };
    ($name:literal if $when:expr) => {
        if $when {
            $crate::fault_point!($name, 0)
        }
    };
    ($name:literal, $which:expr) => {{
        const AT: usize = $crate::fault::place($name);
        $crate::fault::pass(AT, $which)
    }};
}

/// Nothing.
#[cfg(not(feature = "fault-points"))]
#[macro_export]
macro_rules! fault_point {
    ($($any:tt)*) => {{}};
}

/// What is done where the process has a planted bug (`fault::Plant`).
#[cfg(feature = "fault-points")]
#[macro_export]
macro_rules! plant {
    ($plant:ident => $what:expr) => {
        if $crate::fault::planted($crate::fault::Plant::$plant) {
            $what
        }
    };
}

/// Nothing.
#[cfg(not(feature = "fault-points"))]
#[macro_export]
macro_rules! plant {
    ($($any:tt)*) => {{}};
}
