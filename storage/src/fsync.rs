//! How long this disk takes to make a small write durable.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes of one trial write: about what one log entry costs.
const TRIAL_BYTES: usize = 512;

/// Writes and syncs `n` times in a file of its own in `dir`, and says how long each took, in order. Blocks.
/// An election needs the disk to be faster than 0.75 of the shortest election timeout.
pub fn measure_fsync(dir: &Path, n: usize) -> io::Result<Vec<Duration>> {
    let path = dir.join(format!("fsync-trial-{}", std::process::id()));
    let result = measure(&path, n);
    let removed = match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    let durations = result?;
    removed?;
    Ok(durations)
}

fn measure(path: &Path, n: usize) -> io::Result<Vec<Duration>> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let mut trial = || {
        let begin = Instant::now();
        file.write_all(&[0x5a; TRIAL_BYTES])?;
        file.sync_data()?;
        Ok(begin.elapsed())
    };
    (0..n).map(|_| trial()).collect()
}
