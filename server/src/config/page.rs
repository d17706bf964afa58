//! Writes docs/configuration.md from the schema, so that the page cannot say anything else than the code.

use std::fmt::Write;

use buoy_core::spec::timing::{Profile, Timing};

use super::schema::{Missing, SECTIONS, Section};
use super::timing::entries;

/// A file with everything that a first cluster needs; it is checked by a test.
pub const EXAMPLE: &str = include_str!("example.toml");

/// The text of the page.
pub fn configuration_page() -> String {
    let mut page = String::from(INTRODUCTION);
    let _ = write!(page, "\n## An example\n\n```toml\n{}```\n", EXAMPLE);
    for s in SECTIONS.iter().filter(|s| !s.path.is_empty()) {
        section(&mut page, s);
        if s.path == "timing" {
            profiles(&mut page);
        }
    }
    page.push_str(RELOAD);
    page
}

fn section(page: &mut String, s: &Section) {
    let _ = write!(page, "\n## `{}`\n\n{}\n\n", s.header(), s.text);
    page.push_str("| key | value | default | |\n| --- | --- | --- | --- |\n");
    for k in s.keys {
        let default = match k.missing {
            Missing::Refused => "must be given".to_owned(),
            Missing::Default(text) if text.starts_with(['"', 't', 'f']) && !text.contains(' ') => {
                format!("`{text}`")
            }
            Missing::Default(text) => text.to_owned(),
        };
        let _ = writeln!(
            page,
            "| `{}` | {} | {default} | {} Example: `{}` |",
            k.name,
            k.kind.describe(),
            k.text,
            k.example
        );
    }
}

fn profiles(page: &mut String) {
    page.push_str("\n| profile |");
    let columns = Profile::ALL.map(|p| entries(&Timing::for_profile(p)));
    for p in Profile::ALL {
        let _ = write!(page, " `{p}` |");
    }
    page.push_str("\n| --- |");
    page.push_str(&" --- |".repeat(Profile::ALL.len()));
    page.push('\n');
    for (row, (key, _)) in columns[0].iter().enumerate() {
        let _ = write!(page, "| `{key}` |");
        for column in &columns {
            let _ = write!(page, " {} |", column[row].1);
        }
        page.push('\n');
    }
}

const INTRODUCTION: &str = "\
<!-- Written from server/src/config/schema.rs; change it there, then run
     BUOY_UPDATE_DOCS=1 cargo test -p buoy-server config -->
# Configuration

`buoy serve --config FILE` reads one TOML file. `buoy check-config FILE` says everything that is wrong
with it, with line and column, and what to do; the daemon refuses to start with a file that it would
refuse. Unknown keys are refused too.

Durations are text with a unit: `\"75ms\"`, `\"1.5s\"`, `\"2m\"` (us, ms, s, m, h; at most 24h).
Relative paths are taken from the directory of the file.
";

const RELOAD: &str = "
## Changing a running daemon

After `systemctl reload buoy` (SIGHUP) the daemon reads its file again. It takes over `log.level`, and
names in its log every other key that differs, with the old and the new value: those need a restart, and
so do certificates with new content under the old path, which it names as well.
VIPs are never taken from the file again after the first start of the cluster: use `buoy vip put` and
`buoy vip delete`. Nodes of a running cluster cannot be changed by the file either, nor by a restart; at
each start the log names every difference between the file and the cluster.
";
