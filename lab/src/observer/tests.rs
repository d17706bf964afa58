//! The observer fed with made-up answers: it must see one owner, two, none, and frames astray.

use super::*;

const VIP: &str = "192.168.192.13";
const INTERVAL: u64 = MS;

/// An ARP frame in the VIP's name; `probe` makes it an answer to that probe.
fn speak(probe: Option<u32>) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    if let Some(number) = probe {
        frame = frames::PROBER_MAC.to_vec();
        frame.extend(number.to_be_bytes());
    }
    frame.extend([0; 6]);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend([0; 6]);
    frame.extend([192, 168, 192, 13]);
    frame.extend([0; 10]);
    frame
}

/// Runs `plan` (answering ports of each probe, ports that send in the VIP's name after it) and then
/// long enough for all to be judged.
fn observe(plan: &[(PortSet, PortSet)]) -> Figures {
    let mut observer = Observer::new(&[VIP.parse().unwrap()], INTERVAL);
    let last = plan.last().copied().unwrap_or_default().0;
    let rest = std::iter::repeat_n((last, 0), LAG as usize);
    let mut now = INTERVAL;
    for (answering, speaking) in plan.iter().copied().chain(rest) {
        let mut probe = Vec::new();
        observer.tick(now, |frame| probe = frame.to_vec());
        let number = u32::from_be_bytes(probe[8..12].try_into().unwrap());
        for port in 0..4 {
            if answering >> port & 1 == 1 {
                assert!(observer.ingress(port, &speak(Some(number))));
            }
            if speaking >> port & 1 == 1 {
                assert!(!observer.ingress(port, &speak(None)));
            }
        }
        now += INTERVAL;
    }
    let ports = ["n1", "n2", "n3", "client"].map(str::to_owned).to_vec();
    let end = INTERVAL * plan.len() as u64;
    let seen = observer.observations(0, end, ports);
    assert!(seen.judged_until >= end);
    figures(&seen, 0, end).remove(0)
}

#[test]
fn one_owner_after_another_with_dark_time_between() {
    let mut plan = vec![(0b01, 0b01); 10];
    plan.extend([(0, 0); 7]);
    plan.extend([(0b10, 0b10); 10]);
    let seen = observe(&plan);
    let owners: Vec<_> = seen
        .owners
        .iter()
        .map(|owner| {
            (
                owner.port.as_str(),
                owner.first_answer / MS,
                owner.last_answer / MS,
            )
        })
        .collect();
    assert_eq!(owners, [("n1", 1, 10), ("n2", 18, 27)]);
    assert!((seen.dark_ms - 7.0).abs() < 1e-9);
    assert_eq!((seen.dual_probes, seen.stray_intervals), (0, 0));
    assert_eq!(seen.probes, 27);
}

#[test]
fn two_owners_are_seen_and_counted() {
    let mut plan = vec![(0b01, 0); 10];
    plan.extend([(0b11, 0); 3]);
    plan.extend([(0b10, 0); 10]);
    let seen = observe(&plan);
    assert_eq!(seen.dual_probes, 3);
    assert!((seen.dual_ms - 3.0).abs() < 1e-9);
    assert_eq!(seen.dual[0].ports, ["n1", "n2"]);
    assert!(seen.dark.is_empty());
}

#[test]
fn a_frame_of_the_old_owner_is_astray_only_when_it_is_late() {
    let mut plan = vec![(0b01, 0); 10];
    plan.push((0b10, 0b01)); // within the reach of its last answer
    plan.extend([(0b10, 0); 9]);
    assert_eq!(observe(&plan).stray_intervals, 0);
    plan.push((0b10, 0b01)); // ten probes later
    plan.extend([(0b10, 0); 5]);
    let seen = observe(&plan);
    assert_eq!(seen.stray_intervals, 1);
    assert_eq!(seen.stray_ports, ["n1"]);
}

#[test]
fn an_announcement_before_the_first_answer_is_not_astray() {
    let mut plan = vec![(0b01, 0); 10];
    plan.push((0, 0b10));
    plan.extend([(0b10, 0); 5]);
    assert_eq!(observe(&plan).stray_intervals, 0);
}

#[test]
fn late_answers_do_not_count_but_are_counted() {
    let mut observer = Observer::new(&[VIP.parse().unwrap()], INTERVAL);
    for now in 1..=u64::from(LAG) + 1 {
        observer.tick(now * INTERVAL, |_| {});
    }
    observer.ingress(0, &speak(Some(1)));
    assert_eq!(observer.late_answers, 1);
    assert_eq!(observer.answering(), [(VIP.parse().unwrap(), 0)]);
}

#[test]
fn a_repeated_address_is_one_target() {
    let vip = VIP.parse().unwrap();
    assert_eq!(Observer::new(&[vip, vip], INTERVAL).targets.len(), 1);
}
