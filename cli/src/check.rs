//! `buoy check-config`: everything that is wrong with a configuration file.

use std::io::IsTerminal;
use std::path::Path;

use buoy_server::config::{Config, ConfigErrors, check_against_host, interfaces};
use serde_json::{Value, json};

use crate::error::{Failure, Verdict};
use crate::output::Output;

/// Checks the file, and, unless `no_host`, compares it with this machine.
pub fn run(file: &Path, no_host: bool, out: &mut Output) -> Result<Verdict, Failure> {
    let (config, notes) = match check(file, no_host)? {
        Ok(found) => found,
        Err(errors) if errors.is_unreadable() => {
            return Err(Failure::Usage(errors.render(false)));
        }
        Err(errors) => {
            let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            out.either(|| errors_json(&errors), || errors.render(colour))?;
            return Ok(Verdict::Unhealthy);
        }
    };
    out.either(|| good_json(&config, &notes), || good_text(&config, &notes))?;
    Ok(Verdict::Fine)
}

type Checked = Result<(Config, Vec<String>), ConfigErrors>;

fn check(file: &Path, no_host: bool) -> Result<Checked, Failure> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(errors) => return Ok(Err(errors)),
    };
    if no_host {
        return Ok(Ok((config, Vec::new())));
    }
    let host = interfaces().map_err(|e| {
        Failure::Refused(format!(
            "cannot list this machine's network interfaces: {e} (--no-host does without)"
        ))
    })?;
    Ok(check_against_host(&config, &host).map(|notes| (config, notes)))
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
    for warning in config.warnings.iter().chain(notes) {
        text.push_str(&format!("  warning: {warning}\n"));
    }
    text
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

fn errors_json(errors: &ConfigErrors) -> Value {
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
    json!({ "file": errors.name(), "good": false, "count": errors.count(), "problems": problems })
}
