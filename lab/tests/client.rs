//! The clients on a real network: what they count must be what was done to them.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use buoy_lab::client::{Client, ClientSpec, Kind, losses};
use buoy_lab::sys::clock::{MS, now_ns};
use common::{Net, possible};

/// A server in a host that answers every request with its name, until it is dropped.
struct Server(Arc<AtomicBool>, SocketAddr);

impl Server {
    fn start(net: &Net, host: usize) -> Self {
        let address = SocketAddr::new(common::v4(host), 80);
        let listener = net.hosts[host]
            .enter(|| Ok(TcpListener::bind(address)?))
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                let body = format!("h{host}\n");
                let _ = stream.read(&mut [0; 1024]);
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        Self(stop, address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn client(net: &Net, kind: Kind, interval_us: u64, targets: &[SocketAddr]) -> Client {
    let spec = ClientSpec {
        kind,
        targets: targets.to_vec(),
        interval_us,
        deadline_ms: 100,
    };
    Client::start(
        common::program(),
        &net.hosts[0],
        &spec,
        &net.path("client.log"),
    )
    .unwrap()
}

#[test]
fn http_counts_requests_losses_and_blackout() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    let server = Server::start(&net, 1);
    let mut client = client(&net, Kind::Http, 5_000, &[server.1]);
    let start = now_ns();
    client.report_until(start + 300 * MS).unwrap();
    let cut = net.handle().cut(None, Some("h1"), true).unwrap();
    client.report_until(cut + 200 * MS).unwrap();
    let healed = net.handle().heal().unwrap();
    let end = healed + 300 * MS;
    let report = client.report_until(end).unwrap();
    let dark_ms = (healed - cut) as f64 / 1e6;

    let before = losses(&report, start + 50 * MS, cut - 10 * MS).remove(0);
    assert_eq!(before.lost, 0, "{before:?}");
    assert_eq!(before.answered["h1"], before.sent);
    let during = losses(&report, start, end).remove(0);
    assert!(during.lost > 30, "{during:?}");
    assert!(
        (dark_ms - 15.0..dark_ms + 40.0).contains(&during.blackout_ms),
        "{dark_ms}: {during:?}"
    );
    let after = losses(&report, healed + 50 * MS, end).remove(0);
    assert_eq!(after.lost, 0, "{after:?}");
}

#[test]
fn http_tells_refused_from_silent() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    let closed = SocketAddr::new(common::v4(1), 81);
    let mut client = client(&net, Kind::Http, 5_000, &[closed]);
    let start = now_ns();
    let report = client.report_until(start + 200 * MS).unwrap();
    let loss = losses(&report, start, start + 200 * MS).remove(0);
    assert_eq!(loss.sent, loss.lost);
    assert_eq!(
        loss.failures.keys().collect::<Vec<_>>(),
        [&buoy_lab::client::Failure::Refused]
    );
}

#[test]
fn echoes_measure_a_blackout_to_the_millisecond() {
    if !possible() {
        return;
    }
    let net = Net::new(2);
    let targets = [common::v4(1), common::v6(1)].map(|address| SocketAddr::new(address, 0));
    let mut client = client(&net, Kind::Icmp, 1_000, &targets);
    client.report_until(now_ns() + 200 * MS).unwrap();
    let cut = net.handle().cut(None, Some("h1"), true).unwrap();
    client.report_until(cut + 50 * MS).unwrap();
    let healed = net.handle().heal().unwrap();
    let end = healed + 100 * MS;
    let report = client.report_until(end).unwrap();
    let dark_ms = (healed - cut) as f64 / 1e6;
    for loss in losses(&report, cut - 50 * MS, end) {
        assert!(
            (dark_ms - 4.0..dark_ms + 4.0).contains(&loss.blackout_ms),
            "{dark_ms}: {loss:?}"
        );
    }
}

#[test]
fn a_client_ends_with_its_handle() {
    if !possible() {
        return;
    }
    let net = Net::new(1);
    let target = SocketAddr::new(common::v4(0), 80);
    let client = client(&net, Kind::Http, 5_000, &[target]);
    common::eventually("the client runs", || {
        net.hosts[0].processes().unwrap().len() == 1
    });
    drop(client);
    common::eventually("the client is gone", || {
        net.hosts[0].processes().unwrap().is_empty()
    });
}
