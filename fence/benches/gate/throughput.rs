//! A TCP stream through a gate, next to one without (iperf3).

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::setting::{KINDS, Setting, name};
use crate::wire::VIP4;

const SECONDS: &str = "2";
const REPEATS: usize = 9;
const ADDRESSES: u32 = 200;

pub fn run() {
    if Command::new("iperf3")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        println!("iperf3 is missing (apt-get install iperf3): not measured");
        return;
    }
    println!(
        "iperf3 over a veth cable, {ADDRESSES} managed addresses, median of {REPEATS} times {SECONDS} s, in turns; goal: within 2 %\n"
    );
    let settings = KINDS.map(|kind| Setting::new(kind, ADDRESSES));
    for (direction, flag) in [("to the VIP", None), ("from the VIP", Some("-R"))] {
        let mut rates: [Vec<f64>; 3] = Default::default();
        for _ in 0..REPEATS {
            for (setting, rates) in settings.iter().zip(&mut rates) {
                rates.push(rate(setting, flag));
            }
        }
        let medians = rates.each_mut().map(|all| {
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        });
        for (kind, median) in KINDS.into_iter().zip(medians) {
            let percent = 100.0 * (median / medians[0] - 1.0);
            println!(
                "{direction:12}  {:8} {:>6.2} Gbit/s ({percent:+.1} %)",
                name(kind),
                median / 1e9
            );
        }
    }
}

/// A run that failed is made anew, with a server of its own; so often at most.
const ATTEMPTS: usize = 5;
/// A server that serves nobody ends by itself after so many seconds.
const IDLE: &str = "10";

/// Bits a second that arrived.
fn rate(setting: &Setting, flag: Option<&str>) -> f64 {
    let mut why = String::new();
    for _ in 0..ATTEMPTS {
        match run_once(setting, flag) {
            Ok(rate) => return rate,
            Err(e) => why = e,
        }
    }
    panic!("iperf3 failed {ATTEMPTS} times: {why}");
}

fn run_once(setting: &Setting, flag: Option<&str>) -> Result<f64, String> {
    let wire = &setting.wire;
    let mut server = wire.owner.run(|| {
        let mut command = Command::new("iperf3");
        // It says that it listens; what it says later fits into the pipe.
        command.args([
            "-s",
            "-1",
            "--forceflush",
            "--idle-timeout",
            IDLE,
            "-B",
            VIP4,
        ]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().expect("iperf3")
    });
    let mut said = BufReader::new(server.stdout.take().expect("its output")).lines();
    let listens = said
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("listening"));
    let output = wire.client.run(|| {
        let mut command = Command::new("iperf3");
        command.args(["-c", VIP4, "-t", SECONDS, "-J"]).args(flag);
        command.args(["--connect-timeout", "2000"]);
        command.output().expect("iperf3")
    });
    // It has served its one client, or none will come.
    let _ = server.kill();
    server.wait().expect("its end");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("{e} in {:?}", String::from_utf8_lossy(&output.stdout)))?;
    json["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .ok_or_else(|| format!("no rate in {json} (the server listened: {listens})"))
}
