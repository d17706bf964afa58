//! `buoy check-config`: everything that is wrong with a configuration file.

use std::io::IsTerminal;
use std::path::Path;

use buoy_server::config::{Checked, Config, ConfigErrors, interfaces};
use serde_json::{Value, json};

use crate::error::{Failure, Verdict};
use crate::output::Output;

/// Checks the file, and, unless `no_host`, compares it with this machine.
pub fn run(file: &Path, no_host: bool, out: &mut Output) -> Result<Verdict, Failure> {
    let Checked { result, notes } = check(file, no_host)?;
    let config = match result {
        Ok(config) => config,
        Err(errors) if errors.is_unreadable() => {
            return Err(Failure::Usage(errors.render(false)));
        }
        Err(errors) => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            let text = || errors.render(colour) + &warnings(notes.iter());
            out.either(|| errors_json(&errors, &notes), text)?;
            return Ok(Verdict::Unhealthy);
        }
    };
    out.either(|| good_json(&config, &notes), || good_text(&config, &notes))?;
    Ok(Verdict::Fine)
}

fn check(file: &Path, no_host: bool) -> Result<Checked, Failure> {
    if no_host {
        return Ok(Config::check(file, None));
    }
    match interfaces() {
        Ok(host) => Ok(Config::check(file, Some(&host))),
        Err(e) => {
            let words = format!(
                "cannot list this machine's network interfaces: {e} (--no-host does without)"
            );
            let mut checked = Config::check(file, None);
            if checked.result.is_ok() {
                return Err(Failure::Refused(words));
            }
            checked.notes.push(words);
            Ok(checked)
        }
    }
}

fn good_text(config: &Config, notes: &[String]) -> String {
    let mut text = format!(
        "{}: good (cluster {}, node {}, {} nodes, {} VIPs, timing profile {})\n",
        config.path.display(),
        config.cluster,
        config.me.name,
        config.nodes.len(),
        config.vips.len(),
        config.profile
    );
    text.push_str(&warnings(config.warnings.iter().chain(notes)));
    text
}

fn warnings<'a>(all: impl Iterator<Item = &'a String>) -> String {
    all.map(|warning| format!("  warning: {warning}\n"))
        .collect()
}

fn good_json(config: &Config, notes: &[String]) -> Value {
    let warnings: Vec<&String> = config.warnings.iter().chain(notes).collect();
    json!({
        "file": config.path,
        "good": true,
        "cluster": config.cluster,
        "node": config.me.name,
        "nodes": config.nodes.len(),
        "vips": config.vips.len(),
        "warnings": warnings,
        "problems": [],
    })
}

fn errors_json(errors: &ConfigErrors, notes: &[String]) -> Value {
    let problems: Vec<Value> = errors
        .problems()
        .iter()
        .map(|p| {
            let position = p.position();
            json!({
                "message": p.message,
                "expected": p.expected,
                "found": p.found,
                "hint": p.hint,
                "line": position.map(|(line, _)| line),
                "column": position.map(|(_, column)| column),
            })
        })
        .collect();
    json!({
        "file": errors.name(),
        "good": false,
        "count": errors.count(),
        "warnings": notes,
        "problems": problems,
    })
}
