//! What SIGHUP can take over from a changed file, and what needs a restart or a command.

use super::stored::{NODES_STAY, show_node};
use super::timing::entries;
use super::{Config, format_duration};

/// One setting that differs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Its path in the file: `log.level`.
    pub key: String,
    /// Value that the daemon runs with.
    pub old: String,
    /// Value in the file now.
    pub new: String,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} -> {})", self.key, self.old, self.new)
    }
}

/// What to do about a changed file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Reload {
    /// Taken over at once.
    pub can_apply: Vec<Change>,
    /// Taken over when the daemon is restarted.
    pub needs_restart: Vec<Change>,
    /// Differences that no restart takes over either, and what does, in words.
    pub ignored: Vec<String>,
}

impl Reload {
    /// Nothing differs.
    pub fn is_empty(&self) -> bool {
        self.can_apply.is_empty() && self.needs_restart.is_empty() && self.ignored.is_empty()
    }
}

fn show<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |v| v.to_string())
}

impl Config {
    /// What differs from `new`, by what can be done about it.
    pub fn diff(&self, new: &Config) -> Reload {
        let mut reload = Reload::default();
        for (key, old, new) in pairs(&self.settings(), &new.settings()) {
            let change = Change { key, old, new };
            if change.key == "log.level" {
                reload.can_apply.push(change);
            } else if change.key.starts_with("cluster.node[") {
                reload.ignored.push(format!("{change}: {NODES_STAY}"));
            } else if ["cluster.name", "node.name"].contains(&change.key.as_str()) {
                reload.ignored.push(format!(
                    "{change}: a data directory belongs to one node of one cluster, so that a restart with this file is refused; undo the change, or give the new node or cluster an empty node.data_dir"
                ));
            } else {
                reload.needs_restart.push(change);
            }
        }
        if self.vips != new.vips {
            let names: Vec<String> = differing(self, new);
            reload.ignored.push(format!(
                "[[vip]] ({}): VIPs of the file are only read when the cluster starts for the first time; use `buoy vip put -f FILE` or `buoy vip delete NAME`",
                names.join(", ")
            ));
        }
        reload
    }

    /// Every setting but the VIPs, by its path in the file, as text.
    fn settings(&self) -> Vec<(String, String)> {
        let mut list: Vec<(String, String)> = Vec::new();
        let mut add = |key: &str, value: String| list.push((key.to_owned(), value));
        add("cluster.name", self.cluster.clone());
        add("cluster.insecure", self.insecure.to_string());
        for n in &self.nodes {
            add(&format!("cluster.node[{}]", n.id), show_node(n));
        }
        add("node.name", self.me.name.to_string());
        add("node.data_dir", self.data_dir.display().to_string());
        add("node.socket", self.socket.display().to_string());
        add("node.listen", self.listen.to_string());
        add("node.fence", self.fence.to_string());
        let watchdog = self.watchdog.as_ref();
        add("node.watchdog", show(watchdog.map(|w| w.display())));
        let tls = self.tls.as_ref();
        add("tls.ca", show(tls.map(|t| t.ca.display())));
        add("tls.cert", show(tls.map(|t| t.cert.display())));
        add("tls.key", show(tls.map(|t| t.key.display())));
        for (key, value) in entries(&self.timing) {
            add(&format!("timing.{key}"), value);
        }
        if let Some(e) = &self.external_fence {
            add("external_fence.program", e.program.display().to_string());
            add("external_fence.args", format!("{:?}", e.args));
            add("external_fence.timeout", format_duration(e.timeout));
            add("external_fence.wait", e.wait.is_some().to_string());
            add("external_fence.on_failure", show(e.wait));
        }
        add("log.level", self.log_level.to_string().to_lowercase());
        list
    }
}

/// Settings that differ, also those that only one side has.
fn pairs(old: &[(String, String)], new: &[(String, String)]) -> Vec<(String, String, String)> {
    let find = |list: &[(String, String)], key: &str| {
        list.iter()
            .find(|(k, _)| k == key)
            .map_or("none".to_owned(), |(_, v)| v.clone())
    };
    let mut keys: Vec<&String> = old.iter().map(|(k, _)| k).collect();
    keys.extend(
        new.iter()
            .map(|(k, _)| k)
            .filter(|k| !old.iter().any(|(o, _)| o == *k)),
    );
    keys.into_iter()
        .map(|k| (k.clone(), find(old, k), find(new, k)))
        .filter(|(_, old, new)| old != new)
        .collect()
}

fn differing(old: &Config, new: &Config) -> Vec<String> {
    let mut names: Vec<String> = old
        .vips
        .iter()
        .filter(|v| !new.vips.contains(v))
        .chain(new.vips.iter().filter(|v| !old.vips.contains(v)))
        .map(|v| v.name.to_string())
        .collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        vec!["their order".to_owned()]
    } else {
        names
    }
}
