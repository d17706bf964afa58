//! The pages for people say what the program does: their configurations are good, their commands exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use buoy_server::config::{Config, parse_vips};

use crate::args;

fn pages() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let docs = std::fs::read_dir(root.join("docs")).unwrap();
    let mut paths: Vec<PathBuf> = docs.map(|e| e.unwrap().path()).collect();
    paths.push(root.join("README.md"));
    paths.retain(|p| p.extension().is_some_and(|e| e == "md"));
    let read = |p: PathBuf| {
        let text = std::fs::read_to_string(&p).unwrap();
        (p, text)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_toml_block_is_a_good_configuration() {
    let mut count = 0;
    for (path, text) in pages() {
        for block in text.split("```toml\n").skip(1) {
            let block = block.split("```").next().unwrap();
            // One that begins with a VIP is a file for `buoy vip put -f`.
            let good = match block.starts_with("[[vip]]") {
                true => parse_vips(&path, block.as_bytes()).map(drop),
                false => Config::parse(&path, block.as_bytes()).map(drop),
            };
            if let Err(e) = good {
                panic!("{}:\n{e}", path.display());
            }
            count += 1;
        }
    }
    assert!(count >= 2, "{count} blocks");
}

/// `vip put`, `serve`: the commands without subcommands of their own; `lab` has a page of its own.
fn commands() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for c in args::command().get_subcommands() {
        let name = c.get_name();
        if c.has_subcommands() && name != "lab" {
            found.extend(
                c.get_subcommands()
                    .map(|s| format!("{name} {}", s.get_name())),
            );
        } else {
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn the_table_of_commands_is_complete_and_its_options_exist() {
    let text = include_str!("../../docs/cli.md");
    let mut listed = BTreeSet::new();
    for line in text.lines().filter_map(|l| l.strip_prefix("| `buoy ")) {
        let line = line.split('`').next().unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let known = commands();
        let name = [words.iter().take(2), words.iter().take(1)]
            .into_iter()
            .map(|w| w.copied().collect::<Vec<_>>().join(" "))
            .find(|n| known.contains(n))
            .unwrap_or_else(|| panic!("no such command: buoy {line}"));
        let mut command = args::command();
        for word in name.split(' ') {
            command = command.find_subcommand(word).unwrap().clone();
        }
        let has = |word: &str| {
            command
                .get_arguments()
                .any(|a| match word.strip_prefix("--") {
                    Some(long) => a.get_long() == Some(long),
                    None => a.get_short().is_some_and(|s| word == format!("-{s}")),
                })
        };
        for word in &words {
            let word = word.trim_matches(['[', ']']);
            assert!(!word.starts_with('-') || has(word), "{word} of buoy {line}");
        }
        if command
            .get_arguments()
            .any(|a| a.get_long() == Some("watch"))
        {
            assert!(line.contains("--watch"), "--watch of buoy {line}");
        }
        listed.insert(name);
    }
    assert_eq!(listed, commands());
}
