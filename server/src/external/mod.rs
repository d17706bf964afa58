//! External fencing: a program that is run when this node takes VIPs over from a node that fell silent
//! (docs/external-fencing.md). No promise rests on it: what keeps the silent node from answering is its own kernel.
//!
//! The new owner runs it, not the leader: only there do VIPs wait for it behind the shut gate, and only a node to which a
//! quorum has granted them may act against another one.

mod book;
mod order;
mod output;
mod record;
mod run;
#[cfg(test)]
mod testing;
pub mod trusted;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use buoy_core::lease::holder::HolderView;
use buoy_core::state::State;
use buoy_core::{Epoch, NodeId, NodeName, VipName};
use buoy_fence::clock::boottime;
use futures::StreamExt;
use futures::future::{AbortHandle, Abortable, BoxFuture};
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{error, info, warn};

use crate::config::{Config, ExternalFence};
use crate::guardian::Refusals;
use crate::holds::Holds;
use crate::lease::LeaseIn;
use crate::reporter::Reporter;

use book::{Book, Effect, Record};
use order::{Order, RunId, Runner};
use record::RecordFile;

pub use book::Key;

/// Tells what happens to VIPs; clones share the book.
#[derive(Clone)]
pub struct External {
    book: Arc<Mutex<Book>>,
    effects: UnboundedSender<Effect>,
}

impl External {
    /// The state assigns this to the node. Returns the VIPs that must wait.
    pub fn assigned(&self, me: NodeId, state: &State, view: &HolderView) -> Vec<Key> {
        let mine: BTreeMap<VipName, Epoch> = view
            .assignments
            .iter()
            .map(|w| (w.vip.clone(), w.epoch))
            .collect();
        let known = self.book().known();
        let takeovers = state.takeovers(me, known);
        self.tell(|book, effects| book.assigned(state.applied, &mine, takeovers, effects))
    }

    /// A quorum grants the VIP to this node.
    pub fn granted(&self, key: &Key) {
        self.tell(|book, effects| book.granted(key, effects));
    }

    /// The VIP went down here.
    pub fn ended(&self, key: &Key) {
        self.tell(|book, effects| book.ended(key, effects));
    }

    /// The node that should have been fenced under this epoch, and was not.
    pub fn owed(&self, key: &Key) -> Option<NodeName> {
        self.book().owed(key).cloned()
    }

    fn finished(&self, id: &RunId, result: Result<(), String>) {
        self.tell(|book, effects| book.finished(id, result, effects));
    }

    fn tell<T>(&self, what: impl FnOnce(&mut Book, &mut Vec<Effect>) -> T) -> T {
        let mut effects = Vec::new();
        let mut book = self.book();
        let answer = what(&mut book, &mut effects);
        for effect in effects {
            // Sent with the book in hand, so that they are carried out in order. Nobody does when the daemon stops.
            let _ = self.effects.send(effect);
        }
        answer
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries out what the book asks for.
pub struct Keeper {
    external: External,
    fence: ExternalFence,
    by: Runner,
    file: RecordFile,
    lease: UnboundedSender<LeaseIn>,
    holds: Holds,
    reporter: Reporter,
    refusals: Refusals,
    asked: UnboundedReceiver<Effect>,
    // Not tasks of their own: they are killed when this is dropped, and not some time later.
    runs: FuturesUnordered<BoxFuture<'static, (RunId, Result<(), String>)>>,
    under_way: BTreeMap<RunId, AbortHandle>,
    warnings: BTreeMap<RunId, String>,
    written: Record,
}

impl Keeper {
    /// Goes on after an earlier run of the daemon, which had applied the log up to `applied`. `None`: nothing is
    /// configured.
    ///
    /// # Errors
    /// The record of earlier runs cannot be read.
    pub fn new(
        config: &Config,
        applied: u64,
        (lease, holds): (UnboundedSender<LeaseIn>, Holds),
        (reporter, refusals): (Reporter, Refusals),
    ) -> io::Result<Option<Keeper>> {
        let Some(fence) = config.external_fence.clone() else {
            return Ok(None);
        };
        let file = RecordFile::of(&config.data_dir);
        let record = match file.read()? {
            Some(record) => record,
            // What was taken over before anything was configured is none of its business.
            None => {
                let record = Record {
                    seen: Epoch(applied),
                    ..Record::default()
                };
                file.write(&record)?;
                record
            }
        };
        let (effects, asked) = unbounded_channel();
        let ids = config.nodes.iter().map(|n| (n.name.clone(), n.id));
        let external = External {
            book: Arc::new(Mutex::new(Book::new(fence.wait, record.clone()))),
            effects,
        };
        Ok(Some(Keeper {
            external,
            fence,
            by: Runner {
                cluster: config.cluster.clone(),
                node: config.me.name.clone(),
                id: config.me.id,
                ids: ids.collect(),
            },
            file,
            lease,
            holds,
            reporter,
            refusals,
            asked,
            runs: FuturesUnordered::new(),
            under_way: BTreeMap::new(),
            warnings: BTreeMap::new(),
            written: record,
        }))
    }

    /// Tells it what happens.
    pub fn handle(&self) -> External {
        self.external.clone()
    }

    /// Runs for ever. Dropped, it kills what is under way.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                Some(effect) = self.asked.recv() => self.carry_out(effect),
                Some((id, result)) = self.runs.next() => self.ended(&id, result),
                else => return,
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Start(order) => self.start(order),
            Effect::Kill(id) => {
                warn!(
                    victim = %id.0, epoch = %id.1,
                    "external fencing is abandoned and killed: this node no longer has the VIPs that wait for it"
                );
                if let Some(run) = self.under_way.get(&id) {
                    run.abort();
                }
            }
            Effect::LetUp(key) => {
                self.write();
                self.holds.let_up(key);
            }
            Effect::GiveUp((vip, epoch), reason) => {
                self.refusals.note(&vip, reason.clone(), boottime());
                // The leader must not hear of the epoch that was given up before it hears why: it would choose this node
                // once more.
                self.reporter.update(|r| {
                    r.vip_faults.insert(vip.clone(), reason.clone());
                });
                self.say(LeaseIn::GiveUp { vip, epoch, reason });
            }
            Effect::Warn(id, warning) => self.warn(id, warning),
        }
    }

    fn start(&mut self, order: Order) {
        self.write();
        let (victim, epoch) = &order.id;
        let vips: Vec<&str> = order.vips.keys().map(VipName::as_str).take(10).collect();
        info!(
            %victim, %epoch,
            "external fencing begins: {} (timeout {:?}), for {} VIPs ({}{})",
            self.fence.program.display(),
            self.fence.timeout,
            order.vips.len(),
            vips.join(", "),
            if vips.len() < order.vips.len() { ", ..." } else { "" }
        );
        let id = order.id.clone();
        let (fence, by) = (self.fence.clone(), self.by.clone());
        let (abort, registration) = AbortHandle::new_pair();
        self.under_way.insert(id.clone(), abort);
        self.runs.push(Box::pin(async move {
            let run = Abortable::new(run::run(&fence, &order, &by), registration).await;
            let result = run.unwrap_or_else(|_| Err("it was abandoned".to_owned()));
            (id, result)
        }));
    }

    fn ended(&mut self, id: &RunId, result: Result<(), String>) {
        self.under_way.remove(id);
        let (victim, epoch) = id;
        match &result {
            Ok(()) => info!(%victim, %epoch, "external fencing succeeded"),
            Err(why) => error!(%victim, %epoch, "external fencing did not succeed: {why}"),
        }
        self.external.finished(id, result);
    }

    /// Before anything that must not be done twice, or not be forgotten.
    fn write(&mut self) {
        let record = self.external.book().record();
        if record == self.written {
            return;
        }
        match tokio::task::block_in_place(|| self.file.write(&record)) {
            Ok(()) => self.written = record,
            Err(e) => error!(
                "the record of external fencing is not on disk, so a restart of the daemon may repeat or forget a run: {e}"
            ),
        }
    }

    fn warn(&mut self, id: RunId, warning: Option<String>) {
        let old = match warning.clone() {
            Some(warning) => self.warnings.insert(id, warning),
            None => self.warnings.remove(&id),
        };
        if old == warning {
            return;
        }
        self.reporter.update(|r| {
            if let Some(at) = old.and_then(|old| r.warnings.iter().position(|w| *w == old)) {
                r.warnings.remove(at);
            }
            r.warnings.extend(warning);
        });
    }

    fn say(&self, message: LeaseIn) {
        // The lease thread is gone only when the daemon stops.
        let _ = self.lease.send(message);
    }
}
