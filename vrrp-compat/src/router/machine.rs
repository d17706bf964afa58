//! The state machine.

mod judge;

use std::net::IpAddr;
use std::time::Duration;

use buoy_core::Mono;

use super::outsiders::{Outsider, Outsiders};
use super::timing::{MIN_ANSWER_GAP, early, slot_after};
use super::{Again, Effects, Event, Settings, Standing, State, Stats};

/// An advertisement to be sent out of turn.
#[derive(Clone, Copy, Debug)]
struct Prompt {
    at: Mono,
    announce: Option<Again>,
}

/// What there is only while this node advertises.
#[derive(Clone, Copy, Debug)]
struct Active {
    /// When the next regular advertisement is due.
    due: Mono,
    prompt: Option<Prompt>,
}

/// One virtual router as one member of the group sees it.
#[derive(Clone, Debug)]
pub struct Router {
    settings: Settings,
    /// Time of the last step; time never goes back.
    now: Mono,
    /// Since when, or deaf.
    listening: Option<Mono>,
    /// Until when a master may exist that was not heard yet.
    unsure: Option<Mono>,
    /// This node holds the address.
    up: bool,
    /// Where the group's advertisements come from: this node's while up, otherwise the last known. It does not
    /// lapse: an outsider of equal priority and higher address that made the group withdraw must go on
    /// to outrank it, or the group would come back after every down interval.
    source: Option<IpAddr>,
    /// Until when the group counts as master by what others of it sent.
    member: Option<Mono>,
    pub(super) outsiders: Outsiders,
    /// Since when the group has had to do with masters that do not outrank it.
    kept_since: Option<Mono>,
    /// Another one may have been believed to be master: announce again when advertising begins.
    doubt: bool,
    active: Option<Active>,
    /// When the last advertisement was sent out of turn.
    prompted: Option<Mono>,
    standing: Standing,
    stats: Stats,
}

impl Router {
    /// A router that is deaf and holds nothing. Settings out of range are moved into it.
    pub fn new(settings: Settings, now: Mono) -> Router {
        Router {
            settings: settings.sane(),
            now,
            listening: None,
            unsure: None,
            up: false,
            source: None,
            member: None,
            outsiders: Outsiders::default(),
            kept_since: None,
            doubt: false,
            active: None,
            prompted: None,
            standing: Standing::Deaf,
            stats: Stats::default(),
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What this member knows of outsiders.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Counters, for display.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// State after RFC 9568 section 6.4, for display.
    pub fn state(&self) -> State {
        match (self.listening, self.active) {
            (None, _) => State::Initialize,
            (_, None) => State::Backup,
            (_, Some(_)) => State::Active,
        }
    }

    /// Puts other settings into force. Outsiders keep the timers of their last advertisement; but while the group is
    /// master those that it heard have given way to it, and none has a claim before it advertises again, whatever the
    /// priorities are now.
    pub fn reconfigure(&mut self, settings: Settings, now: Mono) -> Effects {
        self.now = self.now.max(now);
        if self.group_is_master() {
            self.outsiders = Outsiders::default();
        }
        self.settings = settings.sane();
        let Settings { interval, .. } = self.settings;
        if let (Some(_), Some(since)) = (self.unsure, self.listening) {
            self.unsure = Some(since + self.settings.down(interval));
        }
        if let Some(active) = &mut self.active {
            // Backups count in the interval last sent until they hear the new one: never later than that.
            active.due = active.due.min(self.now + interval);
        }
        self.settle()
    }

    /// Takes in one event. `now` must not go back; if it does, the last reading counts.
    pub fn step(&mut self, event: Event, now: Mono) -> Effects {
        self.now = self.now.max(now);
        match event {
            Event::Listening => self.listen(),
            Event::Deaf => {
                self.listening = None;
                self.unsure = None;
                // Outsiders are kept: one that outranks the group does so for its down interval whether
                // or not a flapping link is down in between.
                self.member = None;
            }
            Event::Up { source } => {
                if !self.up {
                    // The lease layer has decided; there is nothing more to wait for.
                    self.unsure = None;
                    // Nobody provoked this one, so it does not wait.
                    self.prompted = None;
                }
                self.up = true;
                self.source = Some(source);
            }
            Event::Down { gives_up } => return self.down(gives_up),
            Event::Member { source } => self.member(source),
            Event::Heard {
                from,
                priority,
                interval,
            } => self.heard(from, priority, interval),
            Event::Tick => {}
        }
        self.settle()
    }

    /// When [`Event::Tick`] is due next; always later than the last step.
    pub fn next(&self) -> Option<Mono> {
        self.listening?;
        let times = [
            self.unsure,
            self.outsiders.next(),
            self.patience_ends(),
            self.active.map(|a| a.due),
            self.active.and_then(|a| a.prompt).map(|p| p.at),
        ];
        times.into_iter().flatten().filter(|t| *t > self.now).min()
    }

    /// Whether [`Event::Tick`] has something to do now: what is due, or an advertisement that will be in a moment.
    pub fn is_due(&self, now: Mono) -> bool {
        let soon = now + early(self.settings.interval);
        self.next().is_some_and(|at| at <= now) || self.active.is_some_and(|a| a.due <= soon)
    }

    fn listen(&mut self) {
        if self.listening.is_some() {
            return;
        }
        self.listening = Some(self.now);
        self.unsure = Some(self.now + self.settings.down(self.settings.interval));
        if self.up {
            // Who was master while this node was deaf is not known.
            self.doubt = true;
            self.prompted = None;
        }
    }

    fn down(&mut self, gives_up: bool) -> Effects {
        self.up = false;
        let mut gave_up = false;
        if self.active.take().is_some() {
            gave_up = gives_up;
            // The group stays master while another member takes over: nobody is to be let in between.
            self.member = (!gives_up).then(|| self.group_lasts());
        }
        let mut effects = self.settle();
        if gave_up {
            effects.advertise = Some(0);
            self.stats.gave_up += 1;
        }
        effects
    }

    fn member(&mut self, source: IpAddr) {
        if self.listening.is_none() {
            return;
        }
        self.member = Some(self.group_lasts());
        self.unsure = None;
        self.kept_since = None;
        self.outsiders.unseat();
        if !self.up {
            self.source = Some(source);
            // That member announces.
            self.doubt = false;
        }
    }

    fn heard(&mut self, from: IpAddr, priority: u8, interval: Duration) {
        // A packet may have been in a queue when its socket was closed.
        let Some(listening) = self.listening else {
            return;
        };
        self.stats.heard += 1;
        let interval = self.settings.interval_of(interval);
        if priority == 0 {
            let until = self.now + self.settings.skew(interval);
            let known = self.outsiders.resign(from, until);
            self.unsure = self.unsure.map(|u| u.min(until));
            // One that was known was answered with announcements already.
            return self.prompt((!known).then_some(Again::LowerPriority));
        }
        let was_unsure = self.unsure.take().is_some();
        let seated = !self.group_is_master();
        let outranks = self.outranks(from, priority);
        if outranks {
            // As keepalived: the delay begins anew with the next master of lower priority.
            self.kept_since = None;
            // Who sent for the group until now withdraws.
            self.member = None;
        } else if seated {
            // Heard first soon after listening began: it was master then.
            let since = if was_unsure { listening } else { self.now };
            self.kept_since.get_or_insert(since);
        }
        self.outsiders.hear(Outsider {
            from,
            priority,
            until: self.now + self.settings.down(interval),
            seated,
        });
        if !outranks {
            self.prompt(Some(Again::LowerPriority));
        }
    }

    /// Asks for an advertisement out of turn. Not lost if the last one was sent only just, but put off: the
    /// last word must be ours.
    fn prompt(&mut self, announce: Option<Again>) {
        let earliest = self.prompted.map_or(self.now, |p| p + MIN_ANSWER_GAP);
        let at = self.now.max(earliest);
        if let Some(active) = &mut self.active {
            let pending = active.prompt.get_or_insert(Prompt { at, announce });
            pending.announce = pending.announce.max(announce);
        }
    }

    /// Lets lapse what is over, and does what follows from all that is known.
    fn settle(&mut self) -> Effects {
        let mut effects = Effects::default();
        self.outsiders.purge(self.now);
        if self.outsiders.is_empty() {
            self.kept_since = None;
        }
        self.unsure = self.unsure.filter(|until| *until > self.now);
        let standing = self.judge();
        let outranked = matches!(standing, Standing::Outranked { .. });
        if standing != self.standing {
            if outranked && !matches!(self.standing, Standing::Outranked { .. }) {
                self.stats.outranked += 1;
            }
            self.standing = standing;
            effects.standing = Some(standing);
        }
        self.doubt |= outranked;
        if !self.up || outranked || standing == Standing::Deaf {
            // Nothing is said in leaving: with priority 0 the others would take over from the new master.
            self.active = None;
        } else if self.active.is_none() {
            self.begin();
        }
        self.send(&mut effects);
        effects
    }

    fn begin(&mut self) {
        // Masters that the group takes over from may have announced until just now.
        let announce = self.doubt || !self.outsiders.is_empty();
        self.doubt = false;
        self.kept_since = None;
        self.outsiders.unseat();
        self.active = Some(Active {
            due: self.now + self.settings.interval,
            prompt: None,
        });
        self.prompt(announce.then_some(Again::Takeover));
    }

    fn send(&mut self, effects: &mut Effects) {
        let (now, interval) = (self.now, self.settings.interval);
        let Some(active) = &mut self.active else {
            return;
        };
        if let Some(prompt) = active.prompt.take_if(|p| p.at <= now) {
            active.due = now + interval;
            effects.announce_again = prompt.announce;
            self.stats.announced_again += u64::from(prompt.announce.is_some());
            self.stats.prompt += 1;
            self.prompted = Some(now);
        } else if active.due <= now + early(interval) {
            active.due = slot_after(active.due, interval, now);
            self.stats.regular += 1;
        } else {
            return;
        }
        effects.advertise = Some(self.settings.priority);
    }
}
