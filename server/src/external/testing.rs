//! For the tests of programs that are run.

/// A directory that only root can write to, all the way up; `None`, which is said, where that cannot be had.
pub fn roots_own() -> Option<tempfile::TempDir> {
    let places = ["/run", "/var/lib", "/root"];
    let dir = places
        .iter()
        .find_map(|place| tempfile::tempdir_in(place).ok());
    if dir.is_none() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "cannot run in CI: not root"
        );
        println!("SKIP: not root");
    }
    dir
}
