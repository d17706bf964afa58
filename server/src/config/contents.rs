//! Notices that somebody replaced the content of the certificate files under their old paths.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use super::Config;

/// The files of `[tls]`, with a hash of what was in them; `None`: unreadable.
#[derive(Debug)]
pub struct Contents(Vec<(&'static str, PathBuf, Option<u64>)>);

fn hash(path: &PathBuf) -> Option<u64> {
    let content = std::fs::read(path).ok()?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    Some(hasher.finish())
}

impl Contents {
    /// Reads the files as they are now.
    pub fn read(config: &Config) -> Contents {
        let files = config.tls.as_ref().map(|t| {
            [
                ("tls.ca", &t.ca),
                ("tls.cert", &t.cert),
                ("tls.key", &t.key),
            ]
        });
        let read = |(key, path): (_, &PathBuf)| (key, path.clone(), hash(path));
        Contents(files.into_iter().flatten().map(read).collect())
    }

    /// Files that hold something else now, in words.
    pub fn changed(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (key, path, before) in &self.0 {
            let now = hash(path);
            if now == *before {
                continue;
            }
            let what = match now {
                Some(_) => "has new content",
                None => "cannot be read any more",
            };
            found.push(format!("{key} ({} {what})", path.display()));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::EXAMPLE;
    use super::*;

    #[test]
    fn new_content_under_the_old_path_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let text = EXAMPLE.replace("/etc/buoy/tls/", "");
        let config = Config::parse(&dir.path().join("f.toml"), text.as_bytes()).unwrap();
        for file in ["ca.crt", "n1.crt", "n1.key"] {
            std::fs::write(dir.path().join(file), file).unwrap();
        }
        let contents = Contents::read(&config);
        assert_eq!(contents.changed(), [""; 0]);
        std::fs::write(dir.path().join("n1.crt"), "renewed").unwrap();
        std::fs::remove_file(dir.path().join("n1.key")).unwrap();
        let changed = contents.changed();
        assert_eq!(changed.len(), 2, "{changed:?}");
        assert!(changed[0].contains("tls.cert") && changed[0].contains("new content"));
        assert!(changed[1].contains("tls.key") && changed[1].contains("cannot be read"));
    }
}
