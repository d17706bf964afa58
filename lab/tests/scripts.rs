//! The make targets and their scripts, with stand-ins for the programs that they call.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A directory of programs that come before the real ones.
struct Fakes(TempDir);

impl Fakes {
    fn new(programs: &[(&str, &str)]) -> Self {
        let fakes = Self(tempfile::tempdir().unwrap());
        for (name, script) in programs {
            fakes.add(name, script);
        }
        fakes
    }

    fn add(&self, name: &str, script: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs a command in the project's directory, without /usr/sbin in PATH, as after a plain `su`.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .current_dir(root())
            .env("PATH", format!("{}:/usr/bin:/bin", self.path().display()))
            .env("CARGO_TARGET_DIR", self.path())
            .env("BUOY_TEST_LIMIT", "2")
            // Those of a `make` that runs this test.
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .output()
            .unwrap()
    }
}

fn words(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything that the targets would have to install.
const TOOLS: [(&str, &str); 8] = [
    ("cc", ""),
    ("ip", ""),
    ("ping", ""),
    ("nginx", ""),
    ("keepalived", ""),
    ("vtysh", ""),
    ("tshark", ""),
    ("curl", ""),
];

#[test]
fn a_package_is_missing_when_its_program_or_its_file_is() {
    let fakes = Fakes::new(&[("id", "echo 1000")]);
    let missing = fakes.run(
        "scripts/packages.sh",
        &[
            "sh:dash",
            "/bin/sh:dash",
            "/no/such/stdlib.h:libc6-dev",
            "no-such-program:thing",
        ],
    );
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    let said = words(&missing.stderr);
    assert!(
        said.contains("apt-get install libc6-dev thing\n"),
        "{missing:?}"
    );
    let there = fakes.run("scripts/packages.sh", &["sh:dash", "/bin/sh:dash"]);
    assert!(
        there.status.success() && there.stdout.is_empty(),
        "{there:?}"
    );
}

#[test]
fn make_leaves_standard_output_to_the_demo_and_finds_what_lies_in_sbin() {
    if Command::new("make").arg("--version").output().is_err() {
        println!("SKIP: no make");
        return;
    }
    let fakes = Fakes::new(&TOOLS);
    fakes.add("cargo", "echo Compiling >&2");
    fakes.add(
        "release/buoy",
        r#"case ":$PATH:" in *:/usr/sbin:*) echo "$@" ;; esac"#,
    );
    let made = fakes.run("make", &["demo", "ARGS=--json"]);
    assert!(made.status.success(), "{made:?}");
    assert_eq!(words(&made.stdout), "lab demo --json\n", "{made:?}");
}

#[test]
fn the_steps_of_the_tests_share_one_deadline() {
    let fakes = Fakes::new(&TOOLS);
    fakes.add(
        "cargo",
        r#"case "$*" in *--version) exit 0 ;; "fmt "*) exit 0 ;; esac; exec sleep 20"#,
    );
    let tested = fakes.run("scripts/test.sh", &[]);
    assert_eq!(tested.status.code(), Some(1), "{tested:?}");
    let said = words(&tested.stdout);
    let line = |words: &str| said.lines().any(|line| line.contains(words));
    assert!(line("ok      fmt"), "{said}");
    assert!(line("cut off: the 2 s for all steps were over"), "{said}");
    assert!(line("FAILED  test (not run"), "{said}");
}
