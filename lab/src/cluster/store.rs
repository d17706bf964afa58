//! The lab's directory: what it consists of, and how all of it is taken down, also after a crash.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::backend::BackendSpec;
use crate::ns::{self, Netns};
use crate::process::ProcessId;
use crate::topology::{DIRECTORY, Topology, data_of, directory_of, is_name};

/// What must be known of a lab to work with it or to take it down.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its parts.
    pub topology: Topology,
    /// What floats its VIPs.
    pub backend: BackendSpec,
    /// The program that has the `lab` subcommands: switch and clients.
    pub program: PathBuf,
    /// Whether it ends with the process that made it.
    pub ephemeral: bool,
}

/// No lab of this name is there.
#[derive(Debug)]
pub struct NoSuchLab(pub String);

impl std::fmt::Display for NoSuchLab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = labs();
        write!(f, "no lab is called '{}'; ", self.0)?;
        if known.is_empty() {
            write!(f, "none is up (start one with `buoy lab up`)")
        } else {
            write!(f, "there is {}", known.join(", "))
        }
    }
}

impl std::error::Error for NoSuchLab {}

/// A lab of this name is there, but its switch does not answer, and why.
#[derive(Debug)]
pub struct BrokenLab(pub String, pub String);

impl std::fmt::Display for BrokenLab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(name, why) = self;
        write!(
            f,
            "lab '{name}' is broken; `buoy lab down --name {name}` clears it away: {why}"
        )
    }
}

impl std::error::Error for BrokenLab {}

/// Names of the labs on this machine.
#[must_use]
pub fn labs() -> Vec<String> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| is_name(name))
        .collect();
    names.sort();
    names
}

impl Record {
    /// Makes the lab's directory; this is what keeps two labs of one name apart.
    ///
    /// # Errors
    /// There is a lab of this name, running or left behind.
    pub(super) fn create(&self) -> Result<()> {
        let name = &self.topology.name;
        let directory = self.topology.directory();
        fs::create_dir_all(DIRECTORY).with_context(|| format!("make {DIRECTORY} (needs root)"))?;
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => bail!(
                "a lab called '{name}' is there already, running or left behind by a crash; \
                 `buoy lab down --name {name}` takes it down, another --name starts a second one"
            ),
            other => other.with_context(|| format!("make {}", directory.display()))?,
        }
        // The data of a lab that was up when the machine lost its power: a new one must not begin with it.
        remove_all(&data_of(name))?;
        let temporary = directory.join("lab.json.new");
        fs::write(&temporary, serde_json::to_vec_pretty(self)?)
            .and_then(|()| fs::rename(&temporary, record_path(&directory)))
            .with_context(|| format!("write {}", record_path(&directory).display()))
    }

    /// Reads the record of the lab called `name`.
    ///
    /// # Errors
    /// [`NoSuchLab`], or the record cannot be read.
    pub fn load(name: &str) -> Result<Self> {
        if !is_name(name) {
            bail!(NoSuchLab(name.to_owned()));
        }
        let path = record_path(&directory_of(name));
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!(NoSuchLab(name.to_owned()))
            }
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

fn record_path(directory: &Path) -> PathBuf {
    directory.join("lab.json")
}

/// Ends every process of the lab called `name`, removes its namespaces, its data and its directory. What is
/// gone already is fine; what fails does not keep the rest from being done.
///
/// # Errors
/// [`NoSuchLab`], or what could not be removed.
pub fn teardown(name: &str) -> Result<()> {
    let (directory, data) = (directory_of(name), data_of(name));
    // After a reboot only the data is there: /run is empty then.
    if !is_name(name) || !(directory.exists() || data.exists()) {
        bail!(NoSuchLab(name.to_owned()));
    }
    let mut problems = Vec::new();
    match Record::load(name) {
        Ok(record) => take_down(&record, &mut problems),
        // A crash before the record was written: then nothing else was made either.
        Err(error) if error.is::<NoSuchLab>() => {}
        Err(error) => problems.push(error),
    }
    // The directory goes last: while it is there nobody makes a new lab of this name.
    for path in [&data, &directory] {
        if problems.is_empty() {
            problems.extend(remove_all(path).err());
        }
    }
    match problems.into_iter().next() {
        None => Ok(()),
        Some(problem) => Err(problem.context(format!("take lab '{name}' down"))),
    }
}

/// Removes a directory with all that is in it, if it is there.
fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn take_down(record: &Record, problems: &mut Vec<anyhow::Error>) {
    let topology = &record.topology;
    // The nodes first: while the switch is there, nothing leaves them that a cable would not carry.
    for port in topology.ports() {
        let name = topology.netns(port);
        if !ns::path_of(&name).exists() {
            continue;
        }
        match Netns::open(&name) {
            Ok(ns) => problems.extend(ns.remove().err()),
            // A file that is no namespace: made, but never mounted.
            Err(_) => ns::detach(&name),
        }
    }
    let pidfile = topology.directory().join("switch.pid");
    match ProcessId::read_pidfile(&pidfile) {
        Ok(Some(id)) if id.pid.unsigned_abs() != std::process::id() => {
            if let Some(process) = id.open() {
                problems.extend(process.stop(Duration::from_secs(1)).err());
            }
        }
        Ok(_) => {}
        Err(error) => problems.push(error),
    }
}
