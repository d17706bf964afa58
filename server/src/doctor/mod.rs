//! `buoy doctor`: what this machine has, lacks, or does that matters to a fenced virtual IP.

mod firewall;
mod kernel;
mod network;
mod owners;
mod watchdog;

use std::collections::BTreeSet;
use std::path::PathBuf;

use buoy_fence::link::{ARPHRD_ETHER, Links, Snapshot};

use crate::checks;
use crate::config::{Config, Fence, check_against_host, interfaces};
use crate::precheck::judge;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// As it should be.
    Fine,
    /// To be known, or to be improved.
    Warning,
    /// Buoy refuses to start, or does not do its job.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at: `gate`, `clock`, `interface eth0`, ...
    pub about: String,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: String,
}

impl Finding {
    fn new(about: &str, level: Level, found: String, advice: String) -> Finding {
        Finding {
            about: about.to_owned(),
            level,
            found,
            advice,
        }
    }

    fn fine(about: &str, found: impl Into<String>) -> Finding {
        Finding::new(about, Level::Fine, found.into(), String::new())
    }

    fn warning(about: &str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding::new(about, Level::Warning, found.into(), advice.into())
    }

    fn problem(about: &str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding::new(about, Level::Problem, found.into(), advice.into())
    }
}

/// The files below /proc, /sys and /run; below another root in tests.
pub(crate) struct Files {
    root: PathBuf,
}

impl Files {
    fn host() -> Files {
        Files { root: "/".into() }
    }

    /// The file's text without white space at its ends; `None` where it cannot be read, as on a kernel without it.
    fn read(&self, path: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, path: &str) -> Option<i64> {
        self.read(path)?.parse().ok()
    }
}

/// Looks at this machine, as this user: for `config`, or in general. Changes nothing.
pub async fn examine(config: Option<&Config>) -> Vec<Finding> {
    let files = Files::host();
    let mut found = kernel::examine(&files, config.map_or_else(Fence::default, |c| c.fence));
    match Links::open().and_then(|links| links.snapshot()) {
        Ok(snapshot) => {
            for name in concerned(config, &snapshot) {
                found.extend(network::interface(&files, &snapshot, config, &name));
                if let Some(link) = snapshot.link(&name) {
                    found.extend(owners::of(&files, link));
                }
            }
        }
        Err(e) => found.push(Finding::problem(
            "interfaces",
            format!("cannot be listed: {e}"),
            "run this as root",
        )),
    }
    found.extend(network::host(&files));
    let port = config.map_or(buoy_proto::DEFAULT_PORT, |c| c.listen.port());
    found.extend(firewall::examine(port));
    if let Some(config) = config {
        if let Some(path) = &config.watchdog {
            found.extend(watchdog::examine(&files, path));
        }
        found.extend(configured(config).await);
    }
    found
}

/// The interfaces of the file's VIPs, or all Ethernet ones.
fn concerned(config: Option<&Config>, snapshot: &Snapshot) -> BTreeSet<String> {
    let links = snapshot.links.values();
    let ethernet = || links.filter(|l| l.arphrd == ARPHRD_ETHER && l.up);
    match config {
        Some(config) if !config.vips.is_empty() => {
            config.vips.iter().map(|v| v.interface.clone()).collect()
        }
        _ => ethernet().map(|l| l.name.clone()).collect(),
    }
}

/// What the daemon measures at its start, and its peers.
async fn configured(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    match interfaces().map(|host| check_against_host(config, &host)) {
        Ok(Ok(notes)) => found.extend(notes.iter().map(|n| Finding::warning("vips", n, ""))),
        Ok(Err(errors)) => found.extend(errors.problems().iter().map(|p| {
            Finding::problem(
                "vips",
                format!("{}: {}", p.message, p.label()),
                p.hint.clone().unwrap_or_default(),
            )
        })),
        Err(e) => found.push(Finding::problem(
            "interfaces",
            format!("cannot be listed: {e}"),
            "",
        )),
    }
    let measured = match checks::measure(config).await {
        Ok(measured) => measured,
        Err(e) => {
            found.push(Finding::problem(
                "timing",
                e.to_string(),
                "correct that, and look again",
            ));
            return found;
        }
    };
    let judged = judge(&config.timing, &measured);
    if judged.refusals.is_empty() && judged.warnings.is_empty() {
        let about = format!("this machine carries the timing profile {}", config.profile);
        found.push(Finding::fine("timing", about));
    }
    found.extend(
        judged
            .refusals
            .iter()
            .map(|r| Finding::problem("timing", r, "")),
    );
    found.extend(
        judged
            .warnings
            .iter()
            .map(|w| Finding::warning("timing", w, "")),
    );
    for node in config.nodes.iter().filter(|n| n.id != config.me.id) {
        let about = format!("node {}", node.name);
        let trip = measured
            .round_trips
            .iter()
            .find(|(name, _)| *name == node.name);
        found.push(match trip {
            Some((_, took)) => Finding::fine(&about, format!("{} answers within {took:.1?}", node.address)),
            None => Finding::warning(
                &about,
                format!("{} does not answer", node.address),
                format!("is that machine up, and does a firewall between let TCP and UDP port {} through?", node.address.port()),
            ),
        });
    }
    found
}
