//! The commands against clusters that run.

mod demo;
mod tls;

use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// Can network namespaces be made here? In CI they must.
fn possible() -> bool {
    let name = unique();
    let done = Command::new("ip").args(["netns", "add", &name]).output();
    let _netns = Namespace(name);
    if done.is_ok_and(|o| o.status.success()) {
        return true;
    }
    assert_ne!(
        std::env::var("CI").as_deref(),
        Ok("true"),
        "no network namespaces in CI"
    );
    println!("SKIP: no network namespace can be made (root and iproute2 are needed)");
    false
}

fn number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

fn unique() -> String {
    format!("buoy-{}-{}-cli", std::process::id(), number())
}

/// A network namespace, removed at the end also of a test that panics.
struct Namespace(String);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).output();
    }
}

fn program() -> String {
    let command = Command::cargo_bin("buoy").unwrap();
    command.get_program().to_str().unwrap().to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Labs are run one at a time: their daemons need the processors.
static LABS: Mutex<()> = Mutex::new(());

/// A lab, taken down at the end.
struct Lab(
    String,
    #[expect(dead_code, reason = "held until the lab is down")] MutexGuard<'static, ()>,
);

impl Lab {
    fn up() -> Lab {
        // A lab's name is short: it becomes part of interface names.
        let one = LABS.lock().unwrap_or_else(PoisonError::into_inner);
        let last = char::from(b'a' + (number() % 26) as u8);
        let lab = Lab(format!("c{}{last}", std::process::id() % 100_000), one);
        let output = Command::new(program())
            .args(["lab", "up", "--name", &lab.0])
            .output()
            .unwrap();
        assert_eq!(code(&output), 0, "{}", text(&output));
        lab
    }

    fn buoy(&self, args: &[&str]) -> Output {
        let socket = format!("/run/buoy-lab/{}/n1/buoy.sock", self.0);
        let mut command = Command::new(program());
        command
            .env_remove("BUOY_SERVER")
            .args(["--socket", &socket])
            .args(args);
        command.output().unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(args);
        let output = self.buoy(&all);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{args:?}: {e}: {}", text(&output)))
    }

    /// Waits until `value` of the command's answer is as expected.
    fn until(&self, args: &[&str], pointer: &str, expected: impl Into<Value>) {
        let (expected, began) = (expected.into(), Instant::now());
        loop {
            let answer = self.json(args);
            if answer.pointer(pointer) == Some(&expected) {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{pointer} never was {expected}: {answer:#}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new(program())
            .args(["lab", "down", "--name", &self.0])
            .output();
    }
}

#[test]
fn every_command_against_a_running_cluster() {
    if !possible() {
        return;
    }
    let lab = Lab::up();
    lab.until(&["status"], "/healthy", true);
    let status = lab.buoy(&["status"]);
    assert_eq!(code(&status), 0, "{}", text(&status));
    assert!(
        text(&status).contains("2 of 2 owned exactly once"),
        "{}",
        text(&status)
    );
    assert_eq!(lab.json(&["vip", "list"]).as_array().map(Vec::len), Some(2));
    assert_eq!(
        lab.json(&["vip", "show", "192.168.192.13"])["name"],
        "web-a"
    );
    assert_eq!(
        lab.json(&["node", "list"]).as_array().map(Vec::len),
        Some(3)
    );

    // Both members have reported, so either may have it.
    lab.until(&["vip", "explain", "web-a"], "/candidates/1/eligible", true);
    let from = lab.json(&["vip", "show", "web-a"])["owner"]
        .as_str()
        .unwrap()
        .to_owned();
    let to = if from == "n1" { "n2" } else { "n1" };
    let moved = lab.json(&["vip", "move", "web-a", "--to", to]);
    assert_eq!(
        (&moved["to"], &moved["active"]),
        (&Value::from(to), &Value::from(true)),
        "{moved}"
    );
    let why = lab.json(&["vip", "explain", "web-a"]);
    assert_eq!(
        why["candidates"].as_array().map(Vec::len),
        Some(3),
        "every node: {why:#}"
    );
    assert!(
        why["candidates"][0]["owner"] == true && why["candidates"][0]["node"] == to,
        "{why:#}"
    );
    let refused = lab.buoy(&["vip", "move", "web-a", "--to", "n3"]);
    assert!(
        code(&refused) == 1 && text(&refused).contains("witness"),
        "{}",
        text(&refused)
    );
    assert_eq!(
        lab.json(&["vip", "move", "web-a", "--auto"])["to"],
        to,
        "sticky"
    );
    let last = lab.json(&["vip", "history", "web-a", "--limit", "1"]);
    assert_eq!(last["events"].as_array().map(Vec::len), Some(1));
    assert_eq!(last["events"][0]["cause"], "operator");

    let drained = lab.json(&["node", "drain", to, "--reason", "test"]);
    assert!(
        drained["vips"]
            .as_array()
            .unwrap()
            .contains(&"web-a".into()),
        "{drained}"
    );
    lab.until(&["vip", "show", "web-a"], "/owner", from.as_str());
    assert_eq!(code(&lab.buoy(&["node", "undrain", to])), 0);
    assert_eq!(code(&lab.buoy(&["node", "drain", "n9"])), 1);

    declare_and_delete(&lab);
    let gone = lab.buoy(&["vip", "show", "nope"]);
    assert!(
        code(&gone) == 1 && text(&gone).contains("buoy vip list"),
        "{}",
        text(&gone)
    );
}

/// VIPs by options, and by a file in which they name each other.
fn declare_and_delete(lab: &Lab) {
    let put = [
        "vip",
        "put",
        "extra",
        "--address",
        "192.168.192.77",
        "--interface",
        "eth0",
    ];
    assert_eq!(code(&lab.buoy(&put)), 0);
    lab.until(&["vip", "show", "extra"], "/lease", "held");
    let taken = lab.buoy(&[
        "vip",
        "put",
        "two",
        "--address",
        "192.168.192.77",
        "--interface",
        "eth0",
    ]);
    assert!(
        code(&taken) == 1 && text(&taken).contains("extra"),
        "{}",
        text(&taken)
    );
    assert_eq!(code(&lab.buoy(&["vip", "delete", "extra"])), 0);

    let file = tempfile::NamedTempFile::new().unwrap();
    let vip = |name: &str, ip: &str, with: &str| {
        format!(
            "[[vip]]\nname = \"{name}\"\naddresses = [\"{ip}\"]\ninterface = \"eth0\"\nplacement.colocate_with = [\"{with}\"]\n"
        )
    };
    let both = vip("a", "192.168.192.78", "b") + &vip("b", "192.168.192.79", "a");
    std::fs::write(file.path(), both).unwrap();
    let put = lab.buoy(&["vip", "put", "-f", file.path().to_str().unwrap()]);
    assert_eq!(code(&put), 0, "{}", text(&put));
    let a = lab.json(&["vip", "show", "a"]);
    assert_eq!(a["spec"]["placement"]["colocate_with"][0], "b", "{a:#}");
    lab.until(&["vip", "show", "b"], "/lease", "held");
    lab.until(
        &["vip", "show", "a"],
        "/owner",
        lab.json(&["vip", "show", "b"])["owner"].clone(),
    );
}

#[test]
fn streams_show_every_change_and_end_with_their_reader() {
    if !possible() {
        return;
    }
    let lab = Lab::up();
    lab.until(&["status"], "/healthy", true);
    let socket = format!("/run/buoy-lab/{}/n1/buoy.sock", lab.0);
    let mut watch = Command::new(program())
        .args(["--socket", &socket, "--json", "vip", "list", "--watch"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(watch.stdout.take().unwrap()));
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["snapshot"].as_array().map(Vec::len), Some(2));
    assert_eq!(code(&lab.buoy(&["vip", "delete", "web-b"])), 0);
    let change = next();
    assert_eq!(
        (&change["kind"], &change["vip"]),
        (&"vip-deleted".into(), &"web-b".into())
    );
    drop(lines);
    // The next event meets a closed pipe: the command ends without a word.
    assert_eq!(code(&lab.buoy(&["vip", "delete", "web-a"])), 0);
    let ended = watch.wait_with_output().unwrap();
    assert_eq!((code(&ended), text(&ended).as_str()), (0, ""));
}
