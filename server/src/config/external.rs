//! `[external_fence]`: the program that fences silent nodes from outside.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::parse_duration;
use super::places::Places;
use super::problem::{ConfigErrors, Problem, Problems};
use super::table::Table;
use super::{Config, format_duration};
use crate::external::trusted;

/// Default of `external_fence.timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// A shorter one would fail before most programs have begun.
const MIN_TIMEOUT: Duration = Duration::from_millis(100);
/// Most arguments.
const MAX_ARGS: usize = 64;

/// Said where the table is of no use.
pub(super) const ON_A_WITNESS: &str =
    "[external_fence] does nothing here: this node is a witness, and never takes a VIP over";

/// What a VIP does after its node could not have a silent node fenced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnFailure {
    /// It is given back.
    StayDown,
    /// It comes up.
    TakeOverAnyway,
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnFailure::StayDown => "stay-down",
            OnFailure::TakeOverAnyway => "take-over-anyway",
        })
    }
}

/// The program, and what to do with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalFence {
    /// Absolute.
    pub program: PathBuf,
    /// Arguments before those that are added.
    pub args: Vec<String>,
    /// Longest run.
    pub timeout: Duration,
    /// VIPs wait for its success, and what is done without; `None`: nothing waits.
    pub wait: Option<OnFailure>,
}

pub(super) fn read(
    table: &Table<'_>,
    places: &mut Places,
    problems: &mut Problems,
) -> Option<ExternalFence> {
    let program = table.parsed("program", problems, |text| {
        if text.is_empty() || text.contains('\0') || !Path::new(text).is_absolute() {
            return Err(format!(
                "{text:?} is no absolute path; expected one that begins with /"
            ));
        }
        Ok(PathBuf::from(text))
    });
    if let Some(program) = &program {
        places.put(PROGRAM.to_owned(), program.span.clone());
    }
    let args = read_args(table, problems);
    let timeout = match table.has("timeout") {
        false => Some(DEFAULT_TIMEOUT),
        true => table
            .parsed("timeout", problems, |text| {
                let timeout = parse_duration(text)?;
                if timeout < MIN_TIMEOUT {
                    let least = format_duration(MIN_TIMEOUT);
                    return Err(format!("{text:?} is too short; expected {least} or longer"));
                }
                Ok(timeout)
            })
            .map(|at| at.value),
    };
    let wait = match table.has("wait") {
        false => Some(false),
        true => table.flag("wait", problems).map(|at| at.value),
    };
    let on_failure = match table.has("on_failure") {
        false => Some(OnFailure::StayDown),
        true => read_on_failure(table, wait, problems),
    };
    let on_failure = on_failure?;
    Some(ExternalFence {
        program: program?.value,
        args: args?,
        timeout: timeout?,
        wait: wait?.then_some(on_failure),
    })
}

const PROGRAM: &str = "external_fence.program";

fn read_args(table: &Table<'_>, problems: &mut Problems) -> Option<Vec<String>> {
    if !table.has("args") {
        return Some(Vec::new());
    }
    let texts = table.texts("args", problems)?;
    if texts.items.len() > MAX_ARGS {
        let why = format!(
            "there are {} arguments; expected at most {MAX_ARGS}",
            texts.items.len()
        );
        problems.push(table.refused("args", texts.span, &why));
        return None;
    }
    let mut args = Vec::new();
    for text in &texts.items {
        if text.value.contains('\0') {
            let why = "an argument holds a NUL; expected text without";
            problems.push(table.refused("args", text.span.clone(), why));
        } else {
            args.push(text.value.to_owned());
        }
    }
    (texts.complete && args.len() == texts.items.len()).then_some(args)
}

fn read_on_failure(
    table: &Table<'_>,
    wait: Option<bool>,
    problems: &mut Problems,
) -> Option<OnFailure> {
    let found = table.word("on_failure", problems, |word| match word {
        "stay-down" => Some(OnFailure::StayDown),
        "take-over-anyway" => Some(OnFailure::TakeOverAnyway),
        _ => None,
    })?;
    if wait == Some(false) {
        problems.push(
            Problem::new(
                found.span,
                "`external_fence.on_failure` stands without `wait = true`",
                "nothing waits for the program, so its failure changes nothing",
            )
            .expected("`wait = true` beside it, or no `on_failure`")
            .hint("add `wait = true` if VIPs are to wait for the program; else remove this line"),
        );
        return None;
    }
    Some(found.value)
}

/// The program on this machine, which must be there and belong to root.
pub(super) fn compare(fence: Option<&ExternalFence>, places: &Places, problems: &mut Problems) {
    let Some((fence, place)) = fence.zip(places.get(PROGRAM)) else {
        return;
    };
    if let Err(why) = trusted::check(&fence.program) {
        problems.push(
            Problem::new(
                place,
                format!("{} is not run as root", fence.program.display()),
                why,
            )
            .expected("an executable file that only root can change, in directories that only root can change")
            .hint("`chown root:root` and `chmod go-w` what is named; a program in /tmp or in a home directory is refused"),
        );
    }
}

/// Is there anything against the program of the file on this machine?
///
/// # Errors
/// What, with its place in the file.
pub fn check_program(config: &Config) -> Result<(), ConfigErrors> {
    let mut problems = Problems::default();
    compare(
        config.external_fence.as_ref(),
        &config.places,
        &mut problems,
    );
    problems.into_errors(&config.source)
}

#[cfg(test)]
mod tests {
    use super::super::EXAMPLE;
    use super::*;

    fn parse(table: &str) -> Result<Config, ConfigErrors> {
        let text = format!("{EXAMPLE}\n[external_fence]\n{table}\n");
        Config::parse(Path::new("f.toml"), text.as_bytes())
    }

    #[test]
    fn the_shortest_table_waits_for_nothing() {
        let config = parse("program = \"/usr/sbin/fence\"").unwrap();
        let expected = ExternalFence {
            program: "/usr/sbin/fence".into(),
            args: vec![],
            timeout: Duration::from_secs(30),
            wait: None,
        };
        assert_eq!(config.external_fence, Some(expected));
    }

    #[test]
    fn a_waiting_takeover_stays_down_unless_told_otherwise() {
        for (line, policy) in [
            ("", OnFailure::StayDown),
            ("on_failure = \"stay-down\"", OnFailure::StayDown),
            (
                "on_failure = \"take-over-anyway\"",
                OnFailure::TakeOverAnyway,
            ),
        ] {
            let table = format!(
                "program = \"/f\"\nargs = [\"-x\", \"a b\"]\ntimeout = \"2s\"\nwait = true\n{line}"
            );
            let fence = parse(&table).unwrap().external_fence.unwrap();
            assert_eq!(fence.wait, Some(policy), "{line}");
            assert_eq!(fence.args, ["-x", "a b"]);
            assert_eq!(fence.timeout, Duration::from_secs(2));
        }
    }

    #[test]
    fn what_is_refused_is_named_with_its_place() {
        let first_line = EXAMPLE.lines().count() + 3;
        for (table, words) in [
            ("args = []", "`external_fence.program` is missing"),
            ("program = \"fence.sh\"", "no absolute path"),
            ("program = \"/f\"\ntimeout = \"0s\"", "too short"),
            (
                "program = \"/f\"\non_failure = \"stay-down\"",
                "without `wait = true`",
            ),
            (
                "program = \"/f\"\nwait = false\non_failure = \"take-over-anyway\"",
                "without `wait = true`",
            ),
            (
                "program = \"/f\"\nwait = true\non_failure = \"stay-up\"",
                "no value of `external_fence.on_failure`",
            ),
            ("program = \"/f\"\nargs = \"-x\"", "must be a list of texts"),
            ("program = \"/f\"\nargs = [1]", "is a list of texts"),
            ("program = \"/f\"\nshell = true", "unknown key `shell`"),
        ] {
            let errors = parse(table).unwrap_err();
            let text = errors.to_string();
            assert!(text.contains(words), "{table}: {text}");
            // The header of the table, or a line below it.
            let placed = (first_line - 1..first_line + 3).any(|n| text.contains(&format!(":{n}:")));
            assert!(placed, "{table}: no line {first_line} or so in\n{text}");
        }
    }

    #[test]
    fn the_example_of_the_documentation_is_accepted() {
        let page = include_str!("../../../docs/external-fencing.md");
        let table = page.split("```text\n[external_fence]\n").nth(1).unwrap();
        let table = table.split("```").next().unwrap();
        let fence = parse(table).unwrap().external_fence.unwrap();
        assert_eq!(fence.wait, Some(OnFailure::StayDown));
    }

    #[test]
    fn a_program_that_others_could_change_is_a_problem_of_this_machine_only() {
        let config = parse("program = \"/nowhere/at/all\"").unwrap();
        let text = check_program(&config).unwrap_err().to_string();
        assert!(text.contains("/nowhere"), "{text}");
        assert!(text.contains("no such"), "{text}");
        let config = parse("program = \"/bin/sh\"").unwrap();
        assert!(check_program(&config).is_ok());
    }

    #[test]
    fn on_a_witness_it_does_nothing_and_says_so() {
        let text = format!(
            "{}\n[external_fence]\nprogram = \"/f\"\n",
            EXAMPLE.replace("[node]\nname = \"n1\"", "[node]\nname = \"n3\"")
        );
        let config = Config::parse(Path::new("f.toml"), text.as_bytes()).unwrap();
        assert!(config.warnings.iter().any(|w| w == ON_A_WITNESS));
        assert!(
            !parse("program = \"/f\"")
                .unwrap()
                .warnings
                .iter()
                .any(|w| w == ON_A_WITNESS)
        );
    }
}
