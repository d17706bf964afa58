//! The results as a Markdown page.

use std::fmt::Write as _;

use super::bed::Contender;
use super::crowd;
use super::events::Row;
use super::measure::{DEADLINE_MS, ECHO_US, Sample};
use super::results::Results;
use super::stats::{Summary, number};
use super::targets::verdicts;

/// The whole page.
#[must_use]
pub fn page(results: &Results) -> String {
    let mut text = "# Benchmarks\n\n\
        Written by `make bench` (`buoy lab bench`); not edited by hand. Buoy and keepalived are measured in \
        the same kind of lab (switch, client, observer), in one run, in turns.\n\n"
        .to_owned();
    machine(&mut text, results);
    targets(&mut text, results);
    blackouts(&mut text, results);
    overlaps(&mut text, results);
    takeovers(&mut text, results);
    crowds(&mut text, results);
    idle(&mut text, results);
    soak(&mut text, results);
    noise(&mut text, results);
    failures(&mut text, results);
    text.push_str(METHOD);
    text
}

/// The limit of 50 ms in it is [`crate::observer::BLIND_MS`].
const METHOD: &str = "## How it is measured\n\n\
- Every contender has a lab of its own: network namespaces for two members, a witness and a client, joined by a \
userspace switch that pulls cables and cuts paths. keepalived runs on the two members, with priorities 150 and 100 \
and default options otherwise (so it preempts); Buoy runs on all three, with the profile `lan`, without TLS, \
its data under /var/lib/buoy-lab, on the file system that is named above. One VIP. A contender whose turn it is \
not idles, unobserved.\n\
- *Client blackout*: the longest time from an unanswered ICMP echo request to the next answered one. Requests leave \
every millisecond through the client's own kernel, so that a stale neighbour cache counts; unanswered means no answer \
within 100 ms. *The whole time* means that no answer came while it was watched.\n\
- *Two owners*: an observer on the switch asks every port for the VIP once a millisecond; what two ports answer \
counts, whoever can reach whom, and so does a frame sent in the VIP's name by a node while another one owns it. \
The tables show the time after the event. The target of Buoy is judged over whole turns, from before the event until \
all nodes are back and well. Where the observer did not get a CPU for more than 50 ms it is left open.\n\
- *Planned move*: Buoy `buoy vip move`. keepalived has no such command; the priority of the master is set to 50 in \
its file and the file is read again (SIGHUP), upon which the backup takes over when its timer has run out. The other \
usual way, stopping the master, is the row SIGTERM.\n\
- *SIGKILL*: all processes of the daemon at once (stopped first, so that none sees another one die; a keepalived \
whose parent alone is killed ends as by SIGTERM). keepalived leaves the address on the interface: the \
client goes on being served by a host that nobody manages, next to the new master, until somebody steps in.\n\
- *Node crash*: the cable is pulled and every process in the namespace killed at once.\n\
- *Partition, client with the owner*: the owner keeps the client and loses both other nodes. Buoy's owner has to \
let go there: the client is not served until the partition heals, which is the price of never having two owners. \
The row after it says how long it is dark from the healing on.\n\
- *Crash of the Raft leader that owns nothing*: if the witness leads it is crashed; if a member leads, the VIP is \
moved to the other member first and then the leader is crashed.\n\
- *Owner is the Raft leader* or not: arranged with `buoy vip move`; where the witness leads it is restarted first, \
which hands the leadership on.\n";

fn machine(text: &mut String, results: &Results) {
    let it = &results.machine;
    let _ = write!(
        text,
        "| | |\n|---|---|\n| command | `{}` |\n| date | {}, {:.0} s |\n| machine | {} cores, {}, {} MiB |\n\
         | kernel | {} |\n| file system of the nodes' data | {} |\n| Buoy | {}, {} build |\n| keepalived | {} |\n| repeats | {} |\n\
         | load average (1, 5, 15 min) | {} before, {} after |\n\n",
        it.command,
        it.date,
        it.seconds,
        it.cores,
        it.processor,
        it.memory_mib,
        it.kernel,
        it.data,
        it.buoy,
        it.profile,
        it.keepalived,
        results.repeats,
        it.load_before,
        it.load_after
    );
}

fn targets(text: &mut String, results: &Results) {
    text.push_str("## Targets\n\n| target | measured | |\n|---|---|---|\n");
    for verdict in verdicts(results) {
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            verdict.target,
            verdict.measured,
            verdict.word()
        );
    }
    text.push('\n');
}

fn table(text: &mut String, results: &Results, rows: &[Row], cell: impl Fn(&[&Sample]) -> String) {
    text.push_str("| event |");
    for contender in Contender::ALL {
        let _ = write!(text, " {} |", contender.name());
    }
    text.push_str("\n|---|---|---|---|\n");
    for &row in rows {
        let _ = write!(text, "| {} |", row.title());
        for contender in Contender::ALL {
            let samples: Vec<_> = results.samples(row, contender).collect();
            let words = if samples.is_empty() {
                "-".to_owned()
            } else {
                cell(&samples)
            };
            let _ = write!(text, " {words} |");
        }
        text.push('\n');
    }
    text.push('\n');
}

fn blackouts(text: &mut String, results: &Results) {
    let _ = write!(
        text,
        "## Client blackout, ms (min / **median** / max (repeats))\n\n\
         An echo request every {ECHO_US} us, lost when unanswered for {DEADLINE_MS} ms.\n\n"
    );
    table(text, results, &Row::ALL, |samples| {
        if samples.iter().all(|it| it.dark_throughout()) {
            let watched = samples.first().map_or(0.0, |it| it.watched_ms);
            let repeats = samples.len();
            return format!("the whole time, {} s ({repeats})", number(watched / 1e3));
        }
        Summary::of(samples.iter().map(|it| it.blackout_ms))
            .map_or_else(String::new, |it| it.words())
    });
}

fn overlaps(text: &mut String, results: &Results) {
    text.push_str("## Two owners, ms (min / **median** / max (repeats))\n\n");
    table(text, results, &Row::ALL, |samples| {
        let words = Summary::of(samples.iter().map(|it| it.overlap_ms()))
            .map_or_else(String::new, |it| it.words());
        let watched = samples.first().map_or(0.0, |it| it.watched_ms);
        if samples.iter().all(|it| it.overlap_ms() == 0.0) {
            format!("0 ({})", samples.len())
        } else {
            format!("{words}, watched {} s", number(watched / 1e3))
        }
    });
}

fn takeovers(text: &mut String, results: &Results) {
    text.push_str(
        "## From the event to the first answer of another node, ms (min / **median** / max (repeats))\n\n\
         Seen by the observer.\n\n",
    );
    let rows = [
        Row::Move,
        Row::Term,
        Row::Kill,
        Row::Crash,
        Row::CrashLeader,
        Row::PartitionWithout,
        Row::PartitionWith,
    ];
    table(text, results, &rows, |samples| {
        let seen = Summary::of(samples.iter().filter_map(|it| it.takeover_ms));
        let missing = samples.iter().filter(|it| it.takeover_ms.is_none()).count();
        match (seen, missing) {
            (None, _) => "never".to_owned(),
            (Some(seen), 0) => seen.words(),
            (Some(seen), missing) => format!("{} ({missing} times never)", seen.words()),
        }
    });
}

fn crowds(text: &mut String, results: &Results) {
    if results.crowds.is_empty() {
        return;
    }
    let _ = write!(
        text,
        "## {} VIPs of one crashed node\n\n\
         Probed every {} ms, which is the resolution. min / **median** / max (repeats).\n\n\
         | | crash to the first up, ms | first to last, ms | not up | two owners, ms |\n|---|---|---|---|---|\n",
        crowd::VIPS,
        crowd::PROBE.as_millis()
    );
    for contender in Contender::ALL {
        let seen: Vec<_> = results
            .crowds
            .iter()
            .filter(|it| it.contender == contender)
            .collect();
        let words = |summary: Option<Summary>| summary.map_or("-".to_owned(), |it| it.words());
        if !seen.is_empty() {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                contender.name(),
                words(Summary::of(seen.iter().map(|it| it.first_ms))),
                words(Summary::of(seen.iter().filter_map(|it| it.spread_ms))),
                seen.iter().map(|it| it.missing).sum::<usize>(),
                number(seen.iter().map(|it| it.dual_ms).sum()),
            );
        }
    }
    text.push('\n');
}

fn idle(text: &mut String, results: &Results) {
    let Some(first) = results.idle.first() else {
        return;
    };
    let _ = write!(
        text,
        "## Idle\n\nCPU time and resident memory of the daemon's processes over {:.0} s, \
         from the kernel's CPU clocks and /proc. Buoy locks its \
         memory (mlockall), so what it has touched stays resident.\n\n\
         | VIPs | contender | node | CPU, % of a core | memory, MiB |\n|---|---|---|---|---|\n",
        first.seconds
    );
    for it in &results.idle {
        let _ = writeln!(
            text,
            "| {} | {} | {}, {} | {:.2} | {:.1} |",
            it.vips,
            it.contender.name(),
            it.node,
            it.part,
            it.cpu_percent,
            it.rss_mib
        );
    }
    text.push('\n');
}

fn soak(text: &mut String, results: &Results) {
    let Some(it) = &results.soak else { return };
    let percent = |share: f64| number(share * 100.0);
    let _ = write!(
        text,
        "## A bad network\n\n`buoy lab soak`: {} % of the frames lost, {} % twice, {} % reordered on every link, for \
         {:.0} s, two VIPs.\n\n    {}\n\n",
        percent(it.faults.loss),
        percent(it.faults.duplicate),
        percent(it.faults.reorder),
        it.seconds,
        it.line()
    );
}

fn noise(text: &mut String, results: &Results) {
    let client = Summary::of(results.samples.iter().map(|it| it.client_gap_ms));
    let observer = Summary::of(results.samples.iter().map(|it| it.observer_gap_ms));
    if let (Some(client), Some(observer)) = (client, observer) {
        let _ = write!(
            text,
            "## The machine's own noise\n\nLongest time in a repeat without a CPU, ms (min / **median** / max): client \
             {}, observer {}. Each of these is in the figures above. The row \"nothing happens\" shows what they cost \
             when nothing is done.\n\n",
            client.words(),
            observer.words()
        );
    }
}

fn failures(text: &mut String, results: &Results) {
    if results.failures.is_empty() {
        return;
    }
    text.push_str("## Measurements that did not come about\n\n");
    for failure in &results.failures {
        let first = failure.lines().next().unwrap_or_default();
        let _ = writeln!(text, "- {first}");
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::few;
    use super::*;
    use crate::observer::BLIND_MS;

    #[test]
    fn the_page_shows_what_was_found_and_how_often() {
        let mut results = few();
        results
            .failures
            .push("crash 2, Buoy (lan): no lab\nits log".into());
        let page = page(&results);
        for expected in [
            "| command | `make bench ARGS=\"--quick\"` |",
            "| file system of the nodes' data | ext4 |",
            "| planned move | 4.0 / **4.0** / 4.0 (2) | - | - |",
            "| planned move | 0 (2) | - | - |",
            "open: 2 of 10 repeats |",
            "| two owners: 0 ms, always | 0 ms in 23 turns,",
            "| 200 | Buoy (lan) | n1, owns nothing | 0.40 | 19.0 |",
            "| Buoy (lan) | 280 / **280** / 280 (1) |",
            "leases_lost=0",
            "- crash 2, Buoy (lan): no lab\n\n",
        ] {
            assert!(page.contains(expected), "{expected} is missing in\n{page}");
        }
        assert!(!page.contains("its log"));
        assert!(METHOD.contains(&format!("more than {BLIND_MS} ms")));
    }
}
