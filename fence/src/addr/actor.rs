//! The keeper: one thread that alone writes addresses, in the order in which it was told to.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::fault_point;
use crate::watch::{EVENT_QUEUE, EventSink, KernelEvent, LinkTable, Notices};

use super::absent::Absent;
use super::error::{Action, AddressError, StartError};
use super::kernel::{Kernel, Write};
use super::repairs::Repairs;
use super::{AddressSpec, Command, REFRESH_EVERY, RESYNC_EVERY, Shared};

/// Addresses refreshed before orders and notices get their turn.
const REFRESH_SLICE: usize = 64;

/// An address that we have added.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) spec: AddressSpec,
    pub(super) ifindex: u32,
}

pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) kernel: Kernel,
    pub(super) entries: BTreeMap<IpAddr, Entry>,
    /// Not held any more, but perhaps still there: the kernel did not remove them, or did not say whether it added
    /// them. They are not refreshed.
    pub(super) leaving: BTreeMap<IpAddr, Entry>,
    pub(super) links: LinkTable,
    pub(super) repairs: Repairs,
    pub(super) absent: Absent,
    pub(super) sink: EventSink,
    pub(super) next_resync: Instant,
    notices: Notices,
    commands: mpsc::Receiver<Command>,
    to_refresh: VecDeque<IpAddr>,
    next_refresh: Instant,
}

/// Starts the keeper's thread; comes back when it has its sockets.
pub(super) fn spawn(
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
) -> Result<mpsc::Receiver<KernelEvent>, StartError> {
    let (started, ready) = std::sync::mpsc::channel();
    let (sink, events) = EventSink::new(EVENT_QUEUE);
    let body = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(source) => {
                let what = "start the address keeper's runtime";
                return drop(started.send(Err(StartError { what, source })));
            }
        };
        runtime.block_on(async {
            match Keeper::open(shared, commands, sink) {
                Ok(keeper) => {
                    if started.send(Ok(())).is_ok() {
                        keeper.run().await;
                    }
                }
                Err(e) => drop(started.send(Err(e))),
            }
        });
    };
    let thread = std::thread::Builder::new().name("buoy-addr".to_owned());
    let failed = |source| StartError {
        what: "start the address keeper's thread",
        source,
    };
    thread.spawn(body).map_err(failed)?;
    let died = |_| failed(io::Error::other("it ended at once"));
    ready.recv().map_err(died)??;
    Ok(events)
}

impl Keeper {
    pub(super) fn open(
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        sink: EventSink,
    ) -> Result<Keeper, StartError> {
        let failed = |what| move |source| StartError { what, source };
        let mut kernel = Kernel::open().map_err(failed("open a netlink socket"))?;
        // Subscribed before the first look, so that nothing falls in between.
        let notices =
            Notices::open(kernel.port()).map_err(failed("subscribe to the kernel's notices"))?;
        let snapshot = kernel
            .snapshot()
            .map_err(failed("read interfaces and addresses"))?;
        let mut links = LinkTable::default();
        links.replace(snapshot.links, &mut Vec::new());
        Ok(Keeper {
            shared,
            kernel,
            entries: BTreeMap::new(),
            leaving: BTreeMap::new(),
            links,
            repairs: Repairs::default(),
            absent: Absent::default(),
            sink,
            next_resync: Instant::now() + RESYNC_EVERY,
            notices,
            commands,
            to_refresh: VecDeque::new(),
            next_refresh: Instant::now() + REFRESH_EVERY,
        })
    }

    /// Refreshing comes before notices: a storm of them must not cost an address its lifetime.
    async fn run(mut self) {
        loop {
            let refreshing = !self.to_refresh.is_empty();
            let wake = self.next_refresh.min(self.next_resync);
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                () = sleep_until(wake) => self.on_time(Instant::now()),
                () = std::future::ready(()), if refreshing => {
                    let errors = self.refresh_some(REFRESH_SLICE);
                    self.refresh_failed(errors);
                }
                notices = self.notices.next() => match notices {
                    Ok(notices) => self.noticed(notices),
                    Err(e) if !self.reopen_notices(&e) => return,
                    Err(_) => {}
                },
            }
        }
    }

    fn on_time(&mut self, now: Instant) {
        if self.next_refresh <= now {
            self.next_refresh = now + REFRESH_EVERY;
            self.to_refresh = self.entries.keys().copied().collect();
        }
        if self.next_resync <= now {
            self.next_resync = now + RESYNC_EVERY;
            self.resync();
            self.sink.flush();
        }
    }

    /// False if there is no way to hear of changes any more.
    fn reopen_notices(&mut self, broken: &io::Error) -> bool {
        tracing::warn!(error = %broken, "the kernel's notices broke off; subscribing anew");
        match Notices::open(self.kernel.port()) {
            Ok(notices) => {
                self.notices = notices;
                self.sink.emit(KernelEvent::Overrun);
                self.next_resync = Instant::now();
                true
            }
            Err(e) => {
                tracing::error!(error = %e, "cannot subscribe to the kernel's notices; the address keeper ends");
                false
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // A caller that no longer waits for its answer has what it asked for all the same.
        match command {
            Command::Add(specs, reply) => {
                fault_point!("up.writing");
                let added = self.add(specs);
                fault_point!("up.written");
                drop(reply.send(added));
            }
            Command::Remove(ips, reply) => {
                fault_point!("down.deleting");
                let removed = self.remove(ips);
                fault_point!("down.deleted");
                drop(reply.send(removed));
            }
            Command::RefreshAll(reply) => {
                self.to_refresh = self.entries.keys().copied().collect();
                let failed = self.refresh_some(usize::MAX);
                drop(reply.send(failed.into_iter().map(|(_, e)| e).collect()));
            }
            Command::Cleanup(reply) => drop(reply.send(self.cleanup())),
            Command::Resync => self.next_resync = Instant::now(),
        }
    }

    /// Refreshes the next addresses of those that are due; what failed.
    fn refresh_some(&mut self, most: usize) -> Vec<(IpAddr, AddressError)> {
        let count = most.min(self.to_refresh.len());
        let ips: Vec<_> = self.to_refresh.drain(..count).collect();
        let entries = ips.iter().filter_map(|ip| self.entries.get(ip));
        let entries: Vec<_> = entries
            .filter(|e| self.shared.may_keep(e.spec.ip) && self.can_carry(e))
            .collect();
        let all = entries.iter().map(|e| (&e.spec, e.ifindex));
        let answers = self.kernel.write(Write::Refresh, all);
        let failed = entries.iter().zip(answers);
        let failed = failed.filter_map(|(e, answer)| Some((e, answer.err()?)));
        failed
            .map(|(e, told)| (e.spec.ip, told.error(Action::Add, &e.spec)))
            .collect()
    }
}
