//! Real programs, in a directory that only root can write to.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Instant;

use buoy_core::{Epoch, NodeId};

use super::super::testing::roots_own;
use super::*;

/// A limit on hanging.
const LIMIT: Duration = Duration::from_secs(20);

struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Bench> {
        roots_own().map(|dir| Bench { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fence(&self, script: &str, timeout: Duration) -> ExternalFence {
        let program = self.path("fence");
        // Not written to while another test forks: what is open for writing cannot be run.
        let copy = std::process::Command::new("sh")
            .arg("-c")
            .arg("cat > \"$0\" && chmod 755 \"$0\"")
            .arg(&program)
            .stdin(Stdio::piped())
            .spawn();
        let mut copy = copy.unwrap();
        let text = format!("#!/bin/sh\ncd {}\n{script}\n", self.dir.path().display());
        std::io::Write::write_all(&mut copy.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(copy.wait().unwrap().success());
        ExternalFence {
            program,
            args: vec!["--how".to_owned(), "a b".to_owned()],
            timeout,
            wait: None,
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    async fn wait_for(&self, name: &str) -> String {
        let end = Instant::now() + LIMIT;
        while !self.read(name).ends_with('\n') {
            assert!(Instant::now() < end, "{name} was not written");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.read(name)
    }
}

fn order() -> Order {
    Order {
        id: ("n1".parse().unwrap(), Epoch(17)),
        vips: [("web".parse().unwrap(), Epoch(5))].into(),
    }
}

fn by() -> Runner {
    Runner {
        cluster: "prod".to_owned(),
        node: "n2".parse().unwrap(),
        id: NodeId(2),
        ids: Default::default(),
    }
}

async fn run_it(fence: &ExternalFence) -> Result<(), String> {
    let (order, by) = (order(), by());
    let run = tokio::time::timeout(LIMIT, run(fence, &order, &by)).await;
    run.expect("a run ends in time")
}

/// The script of the documentation, with these places for its own.
fn example(bench: &Bench) -> String {
    let page = include_str!("../../../docs/external-fencing.md");
    let script = page.split("```").find(|part| part.starts_with("sh\n"));
    let script = script.unwrap().trim_start_matches("sh\n");
    let own = |name| bench.path(name).display().to_string();
    let script = script.replace("/etc/buoy/ipmi", &own("ipmi"));
    script.replace("ipmitool -I", &format!("{} -I", own("ipmitool")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_documentation_works() {
    let Some(bench) = Bench::new() else { return };
    let mut fence = bench.fence(&example(&bench), LIMIT);
    fence.args.clear();
    std::fs::write(
        bench.path("ipmi"),
        "n0 192.0.2.8 root /p0\nn1 192.0.2.9 admin /p1\n",
    )
    .unwrap();
    std::fs::write(bench.path("others"), "n0 192.0.2.8 root /p0\n").unwrap();
    // A switch that needs a moment, and reads what it should not.
    let switch = "#!/bin/sh\ncat > /dev/null\ncd \"${0%/*}\"\necho \"$*\" >> asked\ncase \"$*\" in *status) if [ -e off ]; then echo Chassis Power is off; else echo Chassis Power is on; : > off; fi ;; esac\n";
    std::fs::write(bench.path("ipmitool"), switch).unwrap();
    let mode = PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bench.path("ipmitool"), mode).unwrap();
    assert_eq!(run_it(&fence).await, Ok(()));
    let ask = "-I lanplus -H 192.0.2.9 -U admin -f /p1 chassis power";
    let expected = format!("{ask} off\n{ask} status\n{ask} status\n");
    assert_eq!(bench.read("asked"), expected);
    std::fs::rename(bench.path("others"), bench.path("ipmi")).unwrap();
    let unlisted = run_it(&fence).await.unwrap_err();
    assert!(unlisted.contains("does not list n1"), "{unlisted}");
}

/// Waits until a process is no more than a zombie.
async fn wait_gone(pid: &str) {
    let end = Instant::now() + LIMIT;
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    while alive() {
        assert!(Instant::now() < end, "process {pid} lives");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_gets_its_order_and_nothing_else() {
    let Some(bench) = Bench::new() else { return };
    let script =
        "cat > input; env > environment; for a in \"$@\"; do echo \"$a\"; done > arguments";
    let fence = bench.fence(script, LIMIT);
    assert_eq!(run_it(&fence).await, Ok(()));
    assert_eq!(bench.read("arguments"), "--how\na b\nn1\n17\n");
    assert_eq!(bench.read("input"), "web 5 17\n");
    let environment = bench.read("environment");
    for line in [
        "BUOY_VICTIM=n1",
        "BUOY_EPOCH=17",
        "BUOY_VICTIM_EPOCH=5",
        "BUOY_NODE=n2",
    ] {
        assert!(
            environment.lines().any(|l| l == line),
            "{line}: {environment}"
        );
    }
    assert!(!environment.contains("CARGO"), "{environment}");
}

#[tokio::test(flavor = "multi_thread")]
async fn its_end_and_last_words_are_reported() {
    let Some(bench) = Bench::new() else { return };
    for (script, words) in [
        (
            "echo begun; echo no power switch >&2; exit 3",
            "ended with exit status 3; its last words: no power switch",
        ),
        ("kill -TERM $$", "was ended by signal 15"),
        ("exit 1", "ended with exit status 1"),
    ] {
        let why = run_it(&bench.fence(script, LIMIT)).await.unwrap_err();
        assert!(why.ends_with(words), "{script}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_talks_without_end_is_read_all_the_same() {
    let Some(bench) = Bench::new() else { return };
    let script = "head -c 3000000 /dev/zero | tr '\\0' 'x'; echo; seq 1 20000; echo done";
    assert_eq!(run_it(&bench.fence(script, LIMIT)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_killed_with_its_children_at_the_timeout() {
    let Some(bench) = Bench::new() else { return };
    // Deaf to everything that can be ignored, and so are its children.
    let script = "trap '' TERM HUP INT; sleep 1000 & echo $! > child; echo $$ > leader; sleep 1000; sleep 1000";
    let fence = bench.fence(script, Duration::from_millis(1_500));
    let began = Instant::now();
    let why = run_it(&fence).await.unwrap_err();
    assert!(
        why.contains("took longer than 1500ms and was killed"),
        "{why}"
    );
    assert!(began.elapsed() >= fence.timeout);
    for name in ["leader", "child"] {
        wait_gone(&bench.wait_for(name).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_leaves_behind_ends_with_it() {
    let Some(bench) = Bench::new() else { return };
    let fence = bench.fence("sleep 1000 & echo $! > child", LIMIT);
    let began = Instant::now();
    assert_eq!(run_it(&fence).await, Ok(()));
    assert!(began.elapsed() < LIMIT, "nobody waits for the child");
    wait_gone(&bench.wait_for("child").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_dropped_is_killed() {
    let Some(bench) = Bench::new() else { return };
    let fence = bench.fence(
        "sleep 1000 & echo $! > child; echo $$ > leader; wait",
        LIMIT,
    );
    let (order, by) = (order(), by());
    tokio::select! {
        result = run(&fence, &order, &by) => panic!("it ended: {result:?}"),
        _ = bench.wait_for("leader") => {}
    }
    for name in ["leader", "child"] {
        wait_gone(&bench.wait_for(name).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_somebody_else_can_change_is_not_run() {
    let Some(bench) = Bench::new() else { return };
    let fence = bench.fence("echo x > ran", LIMIT);
    std::fs::set_permissions(&fence.program, PermissionsExt::from_mode(0o777)).unwrap();
    let why = run_it(&fence).await.unwrap_err();
    assert!(
        why.contains("could not be started") && why.contains("may write"),
        "{why}"
    );
    assert_eq!(bench.read("ran"), "");
    std::fs::set_permissions(&fence.program, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(&fence.program, "no program").unwrap();
    let why = run_it(&fence).await.unwrap_err();
    assert!(why.contains("could not be started"), "{why}");
}
