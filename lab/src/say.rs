//! Words for standard output, where a reader who has gone away (`| head`) is no reason to fail.

use std::io::Write;

/// Writes one line; what the reader does not want to hear is lost.
pub(crate) fn line(text: &std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// As `println!`, but does not panic when standard output is closed.
macro_rules! say {
    () => { $crate::say::line(&format_args!("")) };
    ($($words:tt)*) => { $crate::say::line(&format_args!($($words)*)) };
}

pub(crate) use say;
