//! One whole run: idle, every event in turns, the crowd, the soak. What goes wrong is noted; the rest goes on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::bed::{Bed, Contender};
use super::results::{self, Results, Turn};
use super::{BAD, BenchArgs, Scope, crowd, idle, say, soak};
use crate::cluster::PROBE;
use crate::switch::protocol::Faults;

/// A contender whose lab could not be started so many times in a row gets no further turn.
const GIVE_UP: u32 = 2;

/// What was found so far, on disk after each turn: a run that is cut off keeps what it has.
pub struct Log {
    /// What was found.
    pub results: Results,
    path: PathBuf,
    start: Instant,
}

impl Log {
    /// Begins to write to `path`.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(results: Results, path: PathBuf) -> Result<Self> {
        results.save(&path)?;
        Ok(Self {
            results,
            path,
            start: Instant::now(),
        })
    }

    /// Notes something that did not come about.
    pub fn failed(&mut self, what: &str, error: &anyhow::Error) {
        say(format_args!("{what}: FAILED: {error:#}"));
        self.results.failures.push(format!("{what}: {error:#}"));
        self.save();
    }

    fn save(&mut self) {
        self.results.machine.load_after = results::load();
        self.results.machine.seconds = self.start.elapsed().as_secs_f64();
        // The measuring goes on: at its end the results are printed or become the page all the same.
        if let Err(error) = self.results.save(&self.path) {
            say(format_args!("{error:#}"));
        }
    }
}

/// A contender and its lab, which is made when it is needed, and anew after a failure.
struct Stand {
    contender: Contender,
    vips: usize,
    probe: Duration,
    bed: Option<Bed>,
    not_started: u32,
}

impl Stand {
    fn all(vips: usize, probe: Duration) -> Vec<Self> {
        Contender::ALL
            .map(|contender| Self {
                contender,
                vips,
                probe,
                bed: None,
                not_started: 0,
            })
            .into()
    }

    /// The lab, or `None` if it cannot be started; that is noted.
    fn bed(&mut self, scope: &Scope, log: &mut Log) -> Option<&Bed> {
        if self.bed.is_none() && self.not_started < GIVE_UP {
            let what = format!("a lab for {}, {} VIP", self.contender.name(), self.vips);
            say(format_args!("{what}"));
            match Bed::start(self.contender, self.vips, self.probe, &scope.buoy) {
                Ok(bed) => {
                    self.bed = Some(bed);
                    self.not_started = 0;
                }
                Err(error) => {
                    self.not_started += 1;
                    log.failed(&what, &error);
                }
            }
        }
        self.bed.as_ref()
    }

    /// One measurement. What the observer saw of all of it is judged, whatever became of it; after a failure
    /// the contender gets a new lab.
    fn turn<T>(
        &mut self,
        scope: &Scope,
        log: &mut Log,
        what: &str,
        measure: impl FnOnce(&Bed) -> Result<T>,
    ) -> Option<T> {
        let contender = self.contender;
        let what = format!("{what}, {}", contender.name());
        let bed = self.bed(scope, log)?;
        let measured = measure(bed);
        let judged = bed.judge();
        let away = bed.look_away();
        match judged {
            Ok(judgement) => {
                for overlap in &judgement.overlaps {
                    if contender == Contender::Buoy {
                        say(format_args!("{what}: TWO OWNERS: {overlap}"));
                    }
                }
                log.results.turns.push(Turn {
                    contender,
                    what: what.clone(),
                    judgement,
                });
            }
            Err(error) => {
                self.bed = None;
                log.failed(&format!("{what}, what the observer saw"), &error);
            }
        }
        match away.and(measured) {
            Ok(found) => Some(found),
            Err(error) => {
                self.bed = None;
                log.failed(&what, &error);
                None
            }
        }
    }
}

/// Measures all that is wanted.
pub fn everything(args: &BenchArgs, scope: &Scope, log: &mut Log) {
    events_and_idle(args, scope, log);
    many_vips(args, scope, log);
    if args.wants("soak") {
        bad_network(scope, log);
    }
    log.save();
}

/// One VIP: idle first, then every event in turns.
fn events_and_idle(args: &BenchArgs, scope: &Scope, log: &mut Log) {
    let events: Vec<_> = args.events().collect();
    let mut stands = Stand::all(1, PROBE);
    measure_idle(args, scope, &mut stands, log);
    for repeat in 1..=scope.repeats {
        for &event in &events {
            for stand in &mut stands {
                if event.applies(stand.contender) {
                    let what = format!("{} {repeat}", event.name());
                    let found = stand.turn(scope, log, &what, |bed| event.run(bed));
                    for it in found.into_iter().flatten() {
                        say(format_args!("{what}, {}", it.line()));
                        log.results.samples.push(it);
                    }
                    log.save();
                }
            }
        }
    }
}

/// Two hundred VIPs: idle, then the crash of the node that owns them all.
fn many_vips(args: &BenchArgs, scope: &Scope, log: &mut Log) {
    let mut stands = Stand::all(crowd::VIPS, crowd::PROBE);
    measure_idle(args, scope, &mut stands, log);
    if !args.wants("crowd") {
        return;
    }
    for repeat in 1..=scope.crowds {
        for stand in &mut stands {
            let what = format!("crowd {repeat}");
            if let Some(it) = stand.turn(scope, log, &what, crowd::crash) {
                say(format_args!(
                    "{what}, {}: first up after {:.0} ms, the last {:.0?} ms later, {} missing",
                    it.contender.name(),
                    it.first_ms,
                    it.spread_ms.unwrap_or(f64::NAN),
                    it.missing
                ));
                log.results.crowds.push(it);
            }
            log.save();
        }
    }
}

/// All contenders over the same stretch of time.
fn measure_idle(args: &BenchArgs, scope: &Scope, stands: &mut [Stand], log: &mut Log) {
    if !args.wants("idle") {
        return;
    }
    let beds: Vec<&Bed> = stands
        .iter_mut()
        .filter_map(|stand| stand.bed(scope, log))
        .collect();
    say(format_args!("idle for {:.0?}", scope.idle));
    match idle::measure(&beds, scope.idle) {
        Ok(idle) => log.results.idle.extend(idle),
        Err(error) => log.failed("idle", &error),
    }
    log.save();
}

fn bad_network(scope: &Scope, log: &mut Log) {
    say(format_args!("a bad network for {:.0?}", scope.soak));
    let faults = Faults {
        loss: BAD,
        duplicate: BAD,
        reorder: BAD,
        ..Faults::default()
    };
    match soak::measure(faults, scope.soak, &scope.buoy) {
        Ok(soak) => {
            say(format_args!("{}", soak.line()));
            log.results.soak = Some(soak);
        }
        Err(error) => log.failed("soak", &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_on_disk_after_each_failure_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("target/bench.json");
        let mut log = Log::new(Results::default(), path.clone()).unwrap();
        log.failed("soak", &anyhow::anyhow!("no cluster"));
        let kept: Results = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(kept.failures, ["soak: no cluster"]);
        // A file where a directory must be: said before anything is measured.
        assert!(Log::new(Results::default(), path.join("x")).is_err());
    }

    #[test]
    fn a_lab_that_never_starts_is_given_up_and_noted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bench.json");
        let mut log = Log::new(Results::default(), path).unwrap();
        let scope = Scope {
            buoy: "/no/such/program".into(),
            repeats: 1,
            crowds: 1,
            idle: Duration::ZERO,
            soak: Duration::ZERO,
        };
        // More VIPs than a lab has room for: this fails before anything is made.
        let mut stand = Stand::all(251, PROBE).remove(0);
        for _ in 0..3 {
            assert!(stand.turn(&scope, &mut log, "move 1", |_| Ok(())).is_none());
        }
        assert_eq!(log.results.failures.len(), GIVE_UP as usize);
    }
}
