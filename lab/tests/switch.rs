//! The switch with real TAP devices: frames pass, and every fault does what it says.

mod common;

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use buoy_lab::switch::protocol::Faults;
use common::{Net, eventually, possible};

fn ping(net: &Net, from: usize, to: usize) -> bool {
    let target = common::v4(to);
    net.run(from, &format!("ping -c 1 -W 0.5 {target}"))
        .status
        .success()
}

#[test]
fn hosts_reach_each_other_by_both_families() {
    if !possible() {
        return;
    }
    let net = Net::new(3);
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        assert!(ping(&net, from, to), "h{from} -> h{to}");
        net.must(from, &format!("ping -c 1 -W 1 {}", common::v6(to)));
    }
    assert!(net.handle().state().unwrap().realtime);
}

#[test]
fn full_size_tcp_passes() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    let listener = net.hosts[1]
        .enter(|| Ok(std::net::TcpListener::bind((common::v4(1), 9000))?))
        .unwrap();
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
    });
    let bytes = 20 * 1024 * 1024;
    net.hosts[0]
        .enter(|| {
            let mut stream = std::net::TcpStream::connect((common::v4(1), 9000))?;
            std::io::Write::write_all(&mut stream, &vec![7; bytes])?;
            Ok(())
        })
        .unwrap();
    assert_eq!(reader.join().unwrap(), bytes as u64);
}

#[test]
fn cuts_have_a_direction_and_heal() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    assert!(ping(&net, 0, 1));
    net.handle().cut(Some("h0"), Some("h1"), true).unwrap();
    assert!(!ping(&net, 0, 1));
    // From h1 frames still arrive: h0 receives the echo request, only its answer is lost.
    let before = net.must(0, "cat /proc/net/snmp");
    assert!(!ping(&net, 1, 0));
    let after = net.must(0, "cat /proc/net/snmp");
    assert_ne!(
        icmp_received(&before),
        icmp_received(&after),
        "h1 -> h0 is open"
    );
    net.handle().heal().unwrap();
    // A neighbour that did not answer is asked again once a second only.
    eventually("h0 reaches h1", || ping(&net, 0, 1));
}

/// InEchos of /proc/net/snmp.
fn icmp_received(snmp: &str) -> u64 {
    let lines: Vec<_> = snmp
        .lines()
        .filter(|line| line.starts_with("Icmp: "))
        .collect();
    let at = lines[0]
        .split(' ')
        .position(|word| word == "InEchos")
        .unwrap();
    lines[1].split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn a_partition_divides_and_who_is_in_no_group_reaches_all() {
    if !possible() {
        return;
    }
    let net = Net::new(4);
    let groups = [vec!["h0".to_owned(), "h1".into()], vec!["h2".to_owned()]];
    net.handle().partition(&groups).unwrap();
    assert!(ping(&net, 0, 1));
    assert!(!ping(&net, 0, 2));
    assert!(!ping(&net, 2, 1));
    assert!(ping(&net, 3, 0) && ping(&net, 3, 2));
    let cuts = net.handle().state().unwrap().cuts;
    assert_eq!(cuts.len(), 4, "{cuts:?}");
    net.handle().heal().unwrap();
    eventually("h0 reaches h2", || ping(&net, 0, 2));
    let error = net.handle().partition(&[vec!["h9".into()]]).unwrap_err();
    assert!(error.to_string().contains("there are h0"), "{error}");
}

#[test]
fn a_pulled_cable_is_seen_in_the_namespace() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    assert!(ping(&net, 0, 1));
    net.handle().cable("h1", false).unwrap();
    eventually("no carrier", || {
        net.must(1, "ip -o link show eth0").contains("NO-CARRIER")
    });
    assert!(!ping(&net, 0, 1));
    net.handle().cable("h1", true).unwrap();
    eventually("carrier", || {
        !net.must(1, "ip -o link show eth0").contains("NO-CARRIER")
    });
    eventually("h1 answers again", || ping(&net, 0, 1));
}

#[test]
fn loss_is_met_on_average() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    assert!(ping(&net, 0, 1), "neighbours know each other");
    net.must(
        0,
        "ip neigh replace 10.9.0.2 lladdr 02:00:0a:09:00:02 dev eth0 nud permanent",
    );
    let lossy = Faults {
        loss: 0.2,
        ..Faults::default()
    };
    net.handle()
        .link_faults(Some("h0"), Some("h1"), lossy)
        .unwrap();
    let output = net.run(0, "ping -q -c 1000 -i 0.001 -W 0.5 10.9.0.2");
    let text = String::from_utf8(output.stdout).unwrap();
    let received: u32 = text
        .split_once(" received")
        .and_then(|(before, _)| before.rsplit(' ').next())
        .unwrap()
        .parse()
        .unwrap();
    assert!((730..870).contains(&received), "{text}");
}

#[test]
fn duplicates_delay_and_reorder_show_up() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    assert!(ping(&net, 0, 1));
    net.handle()
        .port_faults(
            Some("h1"),
            Faults {
                duplicate: 1.0,
                delay_ms: 20.0,
                ..Faults::default()
            },
        )
        .unwrap();
    let started = Instant::now();
    let text = net.must(0, "ping -c 2 -i 0.1 -W 1 10.9.0.2");
    assert!(text.contains("DUP!"), "{text}");
    assert!(started.elapsed() >= Duration::from_millis(140), "{text}");
    let rtt: f64 = text
        .split_once("time=")
        .and_then(|(_, rest)| rest.split(' ').next())
        .unwrap()
        .parse()
        .unwrap();
    // No upper limit: a busy machine is late.
    assert!(rtt >= 40.0, "20 ms each way: {text}");

    net.handle().heal().unwrap();
    let faults = Faults {
        reorder: 0.5,
        ..Faults::default()
    };
    net.handle().link_faults(None, None, faults).unwrap();
    let udp = |host: usize| net.hosts[host].enter(|| Ok(UdpSocket::bind((common::v4(host), 9))?));
    let (sender, receiver) = (udp(0).unwrap(), udp(1).unwrap());
    receiver
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    for number in 0..200_u8 {
        sender.send_to(&[number], (common::v4(1), 9)).unwrap();
    }
    let order: Vec<u8> = (0..200)
        .map(|_| {
            let mut number = [0];
            receiver.recv(&mut number).expect("nothing is lost");
            number[0]
        })
        .collect();
    assert!(order.windows(2).any(|pair| pair[0] > pair[1]), "{order:?}");
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..200), "{order:?}");
}

#[test]
fn nonsense_is_refused_with_words() {
    if !possible() {
        return;
    }
    let net = Net::new(1);
    let faults = Faults {
        loss: 5.0,
        ..Faults::default()
    };
    let error = net.handle().link_faults(None, None, faults).unwrap_err();
    assert!(error.to_string().contains("expected 0 to 1"), "{error}");
    let error = net.handle().owners().unwrap_err();
    assert!(error.to_string().contains("observe"), "{error}");
    let error = net
        .handle()
        .observe(&[common::v4(0)], Duration::from_micros(1))
        .unwrap_err();
    assert!(error.to_string().contains("expected 200"), "{error}");
}
