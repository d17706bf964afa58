//! Fault points: named places between two steps at which a test stops or kills this very process.
//!
//! Only with the feature `fault-points`, which release builds refuse; without it `fault_point!` is nothing. A test
//! names a file in [`FILE_VARIABLE`] and writes an [order](Mode) into it while the daemon runs. The thread that comes
//! by the place first takes the order, notes it in the file's [`notes`], and goes no further.
//!
//! [`POINTS`] are all places: a name that is not among them does not compile, and the tests go through all of them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::clock::boottime;
use crate::gate::GateKind;

#[cfg(not(debug_assertions))]
compile_error!("the feature fault-points is for tests: it has no place in a release build");

mod plant;
mod points;

pub use plant::{PLANT_VARIABLE, Plant, planted};
pub use points::POINTS;

/// Environment variable with the file that orders are written to. Without it no place does anything.
pub const FILE_VARIABLE: &str = "BUOY_FAULT_FILE";

/// What a daemon is at when it comes by a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flow {
    /// A renewal: due, armed, sent, answered, the deadline moved.
    Renewal,
    /// A VIP goes up.
    Up,
    /// A VIP goes down.
    Down,
}

/// What a place is come by for, each with a number of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Each {
    /// Nothing that would have to be told apart.
    Time,
    /// Every other voter: its node id.
    Peer,
    /// An IPv4 and an IPv6 address of the VIP: 4 and 6.
    Family,
}

/// A place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Its name.
    pub name: &'static str,
    /// In the course of what.
    pub flow: Flow,
    /// Only with this gate.
    pub gate: Option<GateKind>,
    /// For each of which.
    pub each: Each,
}

/// What is to happen at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// SIGSTOP, once.
    Stop,
    /// SIGSTOP there, and at every place that is come by afterwards until the file is removed.
    Step,
    /// SIGKILL.
    Kill,
}

impl Mode {
    const ALL: [(Mode, &str); 3] = [
        (Mode::Stop, "stop"),
        (Mode::Step, "step"),
        (Mode::Kill, "kill"),
    ];
}

/// The place of a name, at compile time.
pub const fn place(name: &str) -> usize {
    let mut at = 0;
    while at < POINTS.len() {
        if same(POINTS[at].name, name) {
            return at;
        }
        at += 1;
    }
    panic!("no such fault point: it must stand in POINTS")
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Orders the daemon with this file to stop or die at a place; `which` as [`Each`] says.
///
/// # Errors
/// The file cannot be written.
pub fn order(file: &Path, mode: Mode, point: &Point, which: Option<u64>) -> io::Result<()> {
    let word = Mode::ALL.iter().find(|(m, _)| *m == mode);
    let word = word.map_or("", |(_, word)| word);
    let which = which.map_or(String::new(), |which| which.to_string());
    // In one step: half an order must not be read.
    let draft = beside(file, "draft");
    fs::write(&draft, format!("{word} {} {which}", point.name))?;
    fs::rename(draft, file)
}

/// Where a daemon notes at which places it was stopped or killed: a line each, name, number, and nanoseconds of
/// CLOCK_BOOTTIME.
pub fn notes(file: &Path) -> PathBuf {
    beside(file, "notes")
}

fn beside(file: &Path, what: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".");
    path.push(what);
    path.into()
}

/// Whether every place counts since an order to [step](Mode::Step) was taken.
static STEPPING: Mutex<bool> = Mutex::new(false);

/// A thread comes by a place. What `fault_point!` is.
pub fn pass(at: usize, which: u64) {
    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    let file = FILE.get_or_init(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from));
    let Some(file) = file else { return };
    // Held while the process is stopped: the others do not come by meanwhile in any case.
    let mut stepping = STEPPING.lock().unwrap_or_else(PoisonError::into_inner);
    let Ok(order) = fs::read_to_string(file) else {
        *stepping = false;
        return;
    };
    let name = POINTS[at].name;
    let mut words = order.split_ascii_whitespace();
    let mode = words.next();
    let mode = Mode::ALL.iter().find(|(_, word)| Some(*word) == mode);
    let Some((mode, _)) = mode else {
        eprintln!("{}: no order: {order:?}", file.display());
        std::process::abort();
    };
    let named = words.next() == Some(name);
    let which_named = words.next().is_none_or(|w| w == which.to_string());
    let meant = *stepping || (named && which_named);
    if !meant {
        return;
    }
    *stepping = *mode == Mode::Step;
    if !*stepping {
        taken(fs::remove_file(file));
    }
    let now = boottime().0;
    let open = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(notes(file));
    taken(open.and_then(|mut notes| notes.write_all(format!("{name} {which} {now}\n").as_bytes())));
    let signal = match mode {
        Mode::Stop | Mode::Step => libc::SIGSTOP,
        Mode::Kill => libc::SIGKILL,
    };
    // To this very thread, so that it does not come back from the call before; all others follow.
    // SAFETY: raises a signal, no memory is involved.
    unsafe { libc::raise(signal) };
}

/// A test that goes by what was not noted would judge something else.
fn taken(done: io::Result<()>) {
    if let Err(e) = done {
        eprintln!("a fault point cannot note that it was come by: {e}");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_once_and_leads_to_its_place() {
        for (at, point) in POINTS.iter().enumerate() {
            assert_eq!(place(point.name), at, "{} stands twice", point.name);
        }
    }
}
