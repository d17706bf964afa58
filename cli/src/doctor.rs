//! `buoy doctor`: what this machine has, lacks, or does that matters to Buoy.

use std::path::Path;

use buoy_server::config::Config;
use buoy_server::doctor::{Finding, Level, examine};
use serde_json::{Value, json};

use crate::error::{Failure, Verdict};
use crate::output::Output;

/// Looks at the machine, for a configuration if one is given.
pub async fn run(config: Option<&Path>, out: &mut Output) -> Result<Verdict, Failure> {
    let config = config.map(Config::load).transpose();
    let config = config.map_err(|errors| Failure::Usage(errors.render(false)))?;
    let found = examine(config.as_ref()).await;
    out.either(|| as_json(&found), || as_text(&found))?;
    Ok(Verdict::fine_if(worst(&found) < Level::Problem))
}

fn worst(found: &[Finding]) -> Level {
    let levels = found.iter().map(|f| f.level);
    levels.max().unwrap_or(Level::Fine)
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Fine => "ok",
        Level::Warning => "warning",
        Level::Problem => "PROBLEM",
    }
}

fn as_text(found: &[Finding]) -> String {
    let width = found.iter().map(|f| f.about.len()).max().unwrap_or(0);
    let mut text = String::new();
    for f in found {
        text += &format!("{:7}  {:width$}  {}\n", word(f.level), f.about, f.found);
        if !f.advice.is_empty() {
            text += &format!("{:7}  {:width$}  -> {}\n", "", "", f.advice);
        }
    }
    let count = |level| found.iter().filter(|f| f.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    text + &format!("\n{problems} problems, {warnings} warnings\n")
}

fn as_json(found: &[Finding]) -> Value {
    let finding = |f: &Finding| {
        json!({
            "about": f.about,
            "level": word(f.level).to_lowercase(),
            "found": f.found,
            "advice": (!f.advice.is_empty()).then_some(&f.advice),
        })
    };
    json!({
        "well": worst(found) < Level::Problem,
        "findings": found.iter().map(finding).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lined_up_and_advice_stands_below() {
        let finding = |about: &str, level, found: &str, advice: &str| Finding {
            about: about.into(),
            level,
            found: found.into(),
            advice: advice.into(),
        };
        let found = [
            finding("gate", Level::Fine, "good", ""),
            finding("clock", Level::Problem, "wrong", "set it"),
        ];
        let text = "ok       gate   good\nPROBLEM  clock  wrong\n                -> set it\n\n1 problems, 0 warnings\n";
        assert_eq!(as_text(&found), text);
        assert_eq!(worst(&found), Level::Problem);
        assert_eq!(as_json(&found)["findings"][1]["level"], "problem");
    }
}
