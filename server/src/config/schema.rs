//! Every key of the configuration file: one table for unknown keys, for error messages and for docs/configuration.md.

mod keys;

pub use keys::SECTIONS;

/// What a key holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Text.
    Text,
    /// `true` or `false`.
    Flag,
    /// A whole number in a range.
    Number {
        /// Smallest.
        min: i64,
        /// Largest.
        max: i64,
    },
    /// A length of time as text.
    Duration,
    /// A path; a relative one is taken from the directory of the file.
    Path,
    /// `ip:port`, or `ip` alone with the default port.
    Socket,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A list of addresses with or without prefix length.
    Addresses,
    /// A list of VIP names.
    Names,
    /// A list of texts.
    Texts,
    /// A table of node name = priority.
    Priorities,
    /// A table of node name = address, or list of addresses.
    Sources,
}

impl Kind {
    /// For error messages and the reference: "a duration".
    pub fn describe(self) -> String {
        match self {
            Kind::Text => "text".into(),
            Kind::Flag => "true or false".into(),
            Kind::Number { min, max: i64::MAX } => format!("a whole number, {min} or larger"),
            Kind::Number { min, max } => format!("a whole number, {min} to {max}"),
            Kind::Duration => "a duration".into(),
            Kind::Path => "a path".into(),
            Kind::Socket => "an address, IP:PORT or IP".into(),
            Kind::Word(words) => {
                let quoted: Vec<String> = words.iter().map(|w| format!("\"{w}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Kind::Addresses => "a list of addresses".into(),
            Kind::Names => "a list of VIP names".into(),
            Kind::Texts => "a list of texts".into(),
            Kind::Priorities => "a table of node name = priority".into(),
            Kind::Sources => "a table of node name = address".into(),
        }
    }
}

/// What holds when a key is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Missing {
    /// It must be there.
    Refused,
    /// This value, as it would stand in the file, or in words.
    Default(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What holds without it.
    pub missing: Missing,
    /// A line as it could stand in a file.
    pub example: &'static str,
    /// What it means.
    pub text: &'static str,
}

/// One table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Path of the table: `cluster.node`; empty for the top level.
    pub path: &'static str,
    /// It may stand several times: `[[cluster.node]]`.
    pub list: bool,
    /// What it is about.
    pub text: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// Tables inside it, by their last name.
    pub tables: &'static [&'static str],
}

impl Section {
    /// The header as it stands in a file.
    pub fn header(&self) -> String {
        match (self.path, self.list) {
            ("", _) => "the top level".to_owned(),
            (path, true) => format!("[[{path}]]"),
            (path, false) => format!("[{path}]"),
        }
    }

    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|k| k.name == name)
    }

    /// All names that may stand in it.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let keys = self.keys.iter().map(|k| k.name);
        keys.chain(self.tables.iter().copied())
    }
}

/// The table of this path.
pub fn section(path: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|s| s.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_texts_are_those_of_the_code() {
        use buoy_core::spec::{MAX_ADDRESSES, MAX_TOTAL_ADDRESSES, MAX_VIPS};
        let vip = SECTIONS.iter().find(|s| s.path == "vip").unwrap();
        let addresses = vip.keys.iter().find(|k| k.name == "addresses").unwrap();
        let thousands = |n: usize| format!("{},{:03}", n / 1_000, n % 1_000);
        for (text, words) in [
            (vip.text, format!("at most {} VIPs", thousands(MAX_VIPS))),
            (
                vip.text,
                format!("{} addresses of all VIPs", thousands(MAX_TOTAL_ADDRESSES)),
            ),
            (addresses.text, format!("1 to {MAX_ADDRESSES} addresses")),
        ] {
            assert!(text.contains(&words), "{words:?} is not in {text:?}");
        }
    }

    #[test]
    fn paths_keys_and_tables_fit_together() {
        for s in SECTIONS {
            for table in s.tables {
                let path = if s.path.is_empty() {
                    (*table).to_owned()
                } else {
                    format!("{}.{table}", s.path)
                };
                assert!(section(&path).is_some(), "{path}");
            }
            let mut names: Vec<_> = s.names().collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), s.keys.len() + s.tables.len(), "{}", s.path);
            for k in s.keys {
                assert!(
                    k.example.starts_with(&format!("{} = ", k.name)),
                    "{}",
                    k.example
                );
                assert!(k.text.ends_with('.'), "{}: {}", k.name, k.text);
            }
        }
    }
}
