//! `buoy lab demo`: what Buoy does, and what it costs a client, in under two minutes.

mod report;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cli::{OK, UNHEALTHY, What};
use crate::client::{Client, ClientSpec, Kind, losses};
use crate::cluster::{Lab, Record};
use crate::interrupt::take_down_on_interrupt;
use crate::observer::{Judgement, figures};
use crate::say::say;
use crate::sys::clock::now_ns;
use crate::topology::Topology;

pub use report::{DemoReport, Step, VipStep};

/// How long the cluster may take to form, and a machine to come back.
const FORM: Duration = Duration::from_secs(30);
/// How long a takeover or move may take before the demo gives up.
const MOVE: Duration = Duration::from_secs(15);
/// How long each step is watched after what it shows has happened.
const AFTERWARDS: Duration = Duration::from_millis(1_500);
/// How long the quiet step is.
const QUIET: Duration = Duration::from_secs(2);
/// Time between two requests of the client to a VIP, microseconds.
const REQUEST_US: u64 = 5_000;
/// When a request counts as lost, ms.
const DEADLINE_MS: u64 = 250;

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// The figures, for programs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    what: What,
}

pub(crate) fn run(args: &DemoArgs) -> Result<u8> {
    // Names of their own: two demos may run at once.
    let name = format!("demo-{}", std::process::id());
    let record = args.what.record(Topology::pair(&name, 3)?, true)?;
    let guard = take_down_on_interrupt(&name)?;
    let started = Instant::now();
    let mut report = DemoReport::new(record.backend.backend().name());
    // Whatever goes wrong, the report says what, and what was seen until then.
    if let Err(error) = on_a_lab(record, &mut report, args.json) {
        report.problems.push(format!("{error:#}"));
    }
    drop(guard);
    report.conclude();
    report.seconds = started.elapsed().as_secs_f64();
    if args.json {
        say!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print_verdict();
    }
    Ok(if report.passed { OK } else { UNHEALTHY })
}

fn on_a_lab(record: Record, report: &mut DemoReport, quiet: bool) -> Result<()> {
    let lab = Lab::create(record)?;
    let from = lab.observe()?;
    let shown = Demo::form(&lab, report, quiet).and_then(|mut demo| demo.show());
    let to = now_ns();
    let judged = lab.switch().observed(from, to);
    let judged = judged.map(|seen| report.judge(Judgement::of(&seen, from, to)));
    let failed = [shown, judged, lab.down()]
        .into_iter()
        .filter_map(Result::err);
    report
        .problems
        .extend(failed.map(|error| format!("{error:#}")));
    Ok(())
}

struct Demo<'a> {
    lab: &'a Lab,
    client: Client,
    report: &'a mut DemoReport,
    quiet: bool,
}

impl<'a> Demo<'a> {
    fn form(lab: &'a Lab, report: &'a mut DemoReport, quiet: bool) -> Result<Self> {
        let topology = lab.topology();
        if !quiet {
            report::print_start(lab);
        }
        lab.start_all()?;
        let ready = lab.wait_ready(FORM)?;
        report.formed(&ready);
        if !quiet {
            report.print_formed();
        }
        let targets = topology.vip_addresses();
        let client = lab.client(&ClientSpec {
            kind: Kind::Http,
            targets: targets
                .into_iter()
                .map(|ip| SocketAddr::new(ip, 80))
                .collect(),
            interval_us: REQUEST_US,
            deadline_ms: DEADLINE_MS,
        })?;
        let mut demo = Self {
            lab,
            client,
            report,
            quiet,
        };
        // The first requests start everything up; they are not shown.
        demo.client.report_until(now_ns() + 200_000_000)?;
        Ok(demo)
    }

    fn show(&mut self) -> Result<()> {
        self.step(
            "quiet",
            "Nothing happens for two seconds".to_owned(),
            |_| {
                std::thread::sleep(QUIET);
                Ok(None)
            },
        )?;

        let vip = self.first_vip()?;
        let home = self.owner(&vip)?;
        let victims: Vec<_> = self.owned_by(&home);
        let title =
            format!("{home} loses its power: every process killed and the cable pulled, at once");
        self.step("crash", title, |lab| {
            let at = lab.crash(&home)?;
            for vip in &victims {
                wait_other_owner(lab, vip, &home)?;
            }
            Ok(Some(at))
        })?;
        for vip in &victims {
            self.report.expect_moved("crash", vip, None);
        }

        self.step("return", format!("{home} is back"), |lab| {
            lab.boot(&home)?;
            lab.wait_ready(FORM)?;
            Ok(None)
        })?;

        let target = if self.owner(&vip)? == home {
            // It went home by itself (keepalived that preempts): move it away instead.
            self.other_member(&home)?
        } else {
            home
        };
        let title = format!("An operator moves {vip} to {target}");
        self.step("move", title, |lab| {
            let at = now_ns();
            lab.backend().move_vip(lab, &vip, &target)?;
            lab.wait_owner(&vip, &target, MOVE)?;
            Ok(Some(at))
        })?;
        self.report.expect_moved("move", &vip, Some(&target));
        Ok(())
    }

    /// Does something, watches for a while, and reports what the client and the observer saw. `act` may say
    /// when exactly it happened.
    fn step(
        &mut self,
        name: &str,
        title: String,
        act: impl FnOnce(&Lab) -> Result<Option<u64>>,
    ) -> Result<()> {
        let number = self.report.steps.len() + 1;
        if !self.quiet {
            report::print_title(number, &title);
        }
        let before = self.lab.owners()?;
        let from = now_ns();
        let at = act(self.lab).with_context(|| format!("step '{name}' of the demo"))?;
        std::thread::sleep(AFTERWARDS);
        let to = now_ns();
        let after = self.lab.owners()?;
        let client = self.client.report_until(to)?;
        let seen = self.lab.switch().observed(from, to)?;
        let step = Step::new(
            self.lab,
            (name, title),
            (&before, &after),
            &losses(&client, from, to),
            &figures(&seen, from, to),
            at,
        );
        if !self.quiet {
            step.print();
        }
        self.report.steps.push(step);
        Ok(())
    }

    fn first_vip(&self) -> Result<String> {
        let vip = self
            .lab
            .topology()
            .vips
            .first()
            .context("the lab has no VIP")?;
        Ok(vip.name.clone())
    }

    fn owner(&self, vip: &str) -> Result<String> {
        let owner = self.lab.owner_of(vip)?;
        owner.with_context(|| format!("nobody answers for VIP {vip}"))
    }

    fn owned_by(&self, node: &str) -> Vec<String> {
        let vips = self.lab.topology().vips.iter();
        vips.filter(|vip| matches!(self.lab.owner_of(&vip.name), Ok(Some(owner)) if owner == node))
            .map(|vip| vip.name.clone())
            .collect()
    }

    fn other_member(&self, node: &str) -> Result<String> {
        let other = self
            .lab
            .topology()
            .members()
            .find(|member| member.name != node);
        Ok(other.context("the lab has one member only")?.name.clone())
    }
}

fn wait_other_owner(lab: &Lab, vip: &str, old: &str) -> Result<()> {
    let end = Instant::now() + MOVE;
    loop {
        match lab.owner_of(vip) {
            Ok(Some(owner)) if owner != old => return Ok(()),
            _ if Instant::now() >= end => bail!(
                "nobody took over VIP {vip} from {old} within {} s",
                MOVE.as_secs()
            ),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
