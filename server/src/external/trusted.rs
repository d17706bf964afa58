//! May this program be run as root? Only if nobody but root can change it, or what its path leads to.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// As many symbolic links as the kernel follows.
const MAX_LINKS: usize = 40;
/// Write permission of group and others. An access control list shows up in the group's.
const OTHERS_WRITE: u32 = 0o022;
const ANY_EXECUTE: u32 = 0o111;

/// Walks the path as the kernel would: each directory on the way, also on that of symbolic links, and the program
/// itself must belong to root, and nobody else may write to them.
///
/// # Errors
/// What is in the way, in words.
pub fn check(program: &Path) -> Result<(), String> {
    let mut at = PathBuf::from("/");
    let mut links = 0;
    // What is still to be walked, the next part last.
    let mut rest: Vec<PathBuf> = parts(program)?;
    judge(&at, &metadata(&at)?)?;
    while let Some(part) = rest.pop() {
        if part == Path::new("..") {
            at.pop();
            continue;
        }
        let next = at.join(&part);
        let found = metadata(&next)?;
        if found.is_symlink() {
            links += 1;
            if links > MAX_LINKS {
                return Err(format!(
                    "{} leads through too many links",
                    program.display()
                ));
            }
            // Who could change the link could change its directory, which was judged.
            let target = std::fs::read_link(&next).map_err(|e| cannot_see(&next, &e))?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            rest.extend(parts(&target)?);
            continue;
        }
        judge(&next, &found)?;
        at = next;
    }
    executable(&at, &metadata(&at)?)
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Result<Vec<PathBuf>, String> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(PathBuf::from(part)),
            Component::ParentDir => parts.push(PathBuf::from("..")),
            Component::RootDir | Component::CurDir => {}
            Component::Prefix(_) => return Err(format!("{} is no path", path.display())),
        }
    }
    parts.reverse();
    Ok(parts)
}

fn metadata(path: &Path) -> Result<Metadata, String> {
    std::fs::symlink_metadata(path).map_err(|e| cannot_see(path, &e))
}

fn cannot_see(path: &Path, e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::NotFound => format!("there is no such file: {}", path.display()),
        _ => format!("{} cannot be looked at: {e}", path.display()),
    }
}

fn judge(path: &Path, found: &Metadata) -> Result<(), String> {
    if found.uid() != 0 {
        return Err(format!(
            "{} belongs to user {}, expected root (0)",
            path.display(),
            found.uid()
        ));
    }
    let mode = found.permissions().mode();
    if mode & OTHERS_WRITE != 0 {
        return Err(format!(
            "others than root may write to {} (mode {:04o})",
            path.display(),
            mode & 0o7777
        ));
    }
    Ok(())
}

fn executable(path: &Path, found: &Metadata) -> Result<(), String> {
    if !found.is_file() {
        return Err(format!("{} is no file", path.display()));
    }
    if found.permissions().mode() & ANY_EXECUTE == 0 {
        return Err(format!("{} is not executable", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::super::testing::roots_own;
    use super::*;

    fn put(path: &Path, mode: u32) {
        std::fs::write(path, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_program_is_run_only_if_nobody_but_root_can_change_it() {
        let Some(dir) = roots_own() else { return };
        let program = dir.path().join("fence");
        put(&program, 0o755);
        assert_eq!(check(&program), Ok(()));
        for (mode, words) in [
            (0o775, "others than root may write"),
            (0o757, "others than root may write"),
            (0o644, "is not executable"),
        ] {
            put(&program, mode);
            let why = check(&program).unwrap_err();
            assert!(why.contains(words) && why.contains("fence"), "{why}");
        }
        put(&program, 0o700);
        chown(&program, Some(65_534), None).unwrap();
        let why = check(&program).unwrap_err();
        assert!(why.contains("belongs to user 65534"), "{why}");
        let why = check(&dir.path().join("other")).unwrap_err();
        assert!(why.contains("no such file"), "{why}");
        let why = check(dir.path()).unwrap_err();
        assert!(why.contains("is no file"), "{why}");
    }

    #[test]
    fn so_must_every_directory_be_and_those_that_links_lead_through() {
        let Some(dir) = roots_own() else { return };
        let open = dir.path().join("open");
        let shut = dir.path().join("shut");
        for (sub, mode) in [(&open, 0o1777), (&shut, 0o755)] {
            std::fs::create_dir(sub).unwrap();
            std::fs::set_permissions(sub, PermissionsExt::from_mode(mode)).unwrap();
            put(&sub.join("fence"), 0o755);
        }
        let refused = |path: &Path| {
            let why = check(path).unwrap_err();
            assert!(
                why.contains("may write to") && why.contains("/open"),
                "{why}"
            );
        };
        refused(&open.join("fence"));
        // From a good place into a bad one, and through a bad one into a good one.
        symlink(open.join("fence"), shut.join("into")).unwrap();
        refused(&shut.join("into"));
        symlink(shut.join("fence"), open.join("out")).unwrap();
        symlink("../open/out", shut.join("through")).unwrap();
        refused(&shut.join("through"));
        symlink("fence", shut.join("beside")).unwrap();
        assert_eq!(check(&shut.join("beside")), Ok(()));
        symlink("circle", shut.join("circle")).unwrap();
        let why = check(&shut.join("circle")).unwrap_err();
        assert!(why.contains("too many links"), "{why}");
    }

    #[test]
    fn parts_of_a_path_that_go_up_are_followed() {
        assert_eq!(check(Path::new("/usr/../bin/./sh")), Ok(()));
    }
}
