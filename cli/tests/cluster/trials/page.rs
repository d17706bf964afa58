//! The figures of the trials, and their section in docs/verification.md.

use std::fmt;
use std::path::Path;
use std::process::Command;

use super::Outcome;
use super::faults::Fault;
use super::instruments::Kind;

const BEGIN: &str = "<!-- trials: begin, written by make trials -->";
const END: &str = "<!-- trials: end -->";

/// One gate, one lease, one fault.
pub struct Row {
    fence: &'static str,
    profile: &'static str,
    fault: Fault,
    outcomes: Vec<Outcome>,
}

impl Row {
    pub fn new(fence: &'static str, profile: &'static str, fault: Fault) -> Row {
        Row {
            fence,
            profile,
            fault,
            outcomes: Vec::new(),
        }
    }

    pub fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// The latest answer of a kind over all repeats, ms after the deadline.
    fn latest(&self, kind: Kind) -> Option<f64> {
        let all = self.outcomes.iter().filter_map(|o| o.late.get(&kind));
        all.copied().max_by(f64::total_cmp)
    }

    /// # Panics
    /// An answer came later than `tolerance` ms after the deadline; or nothing was measured.
    pub fn judge(&self, tolerance: f64) {
        for kind in Kind::ALL {
            let latest = self.latest(kind);
            // A starved machine may keep its lease throughout.
            assert!(
                latest.is_some() || self.fault == Fault::Starve,
                "no {kind:?} was seen: {self}"
            );
            let late = latest.unwrap_or(f64::NEG_INFINITY);
            assert!(
                late <= tolerance,
                "{kind:?} {late:.3} ms after the deadline: {self}"
            );
        }
        for apart in self.outcomes.iter().filter_map(|o| o.apart) {
            assert!(apart > 0.0, "two owners: {self}");
        }
    }

    fn cells(&self) -> Vec<String> {
        let ms = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.2}"));
        let mut apart: Vec<f64> = self.outcomes.iter().filter_map(|o| o.apart).collect();
        let mut dark: Vec<f64> = self.outcomes.iter().map(|o| o.dark).collect();
        apart.sort_by(f64::total_cmp);
        dark.sort_by(f64::total_cmp);
        let median = dark.get(dark.len() / 2).copied();
        let mut cells = vec![
            self.fence.to_owned(),
            self.profile.to_owned(),
            self.fault.to_string(),
            self.outcomes.len().to_string(),
        ];
        cells.extend(Kind::ALL.map(|kind| ms(self.latest(kind))));
        cells.push(ms(apart.first().copied()));
        cells.push(format!("{} / {}", ms(median), ms(dark.last().copied())));
        cells
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cells().join(" | "))
    }
}

/// Writes the section between its markers.
pub fn write(rows: &[Row], repeats: usize) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = root.join("docs/verification.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (head, rest) = page.split_once(BEGIN).expect("the section's first marker");
    let (_, tail) = rest.split_once(END).expect("the section's last marker");
    let said = |program: &str, args: &[&str]| {
        let output = Command::new(program)
            .args(args)
            .current_dir(root)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let mut section = format!(
        "{BEGIN}\n{} by `make trials`, commit {}, Linux {}, {} processors, {repeats} repeats each.\n\n\
         | gate | lease | fault | repeats | ARP | ICMP | TCP | ND | apart, least | dark, median / most |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        said("date", &["-u", "+%Y-%m-%d"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
        said("uname", &["-r"]),
        std::thread::available_parallelism().unwrap(),
    );
    for row in rows {
        section += &format!("| {} |\n", row.cells().join(" | "));
    }
    std::fs::write(&path, format!("{head}{section}{END}{tail}")).unwrap();
}
