//! Addresses that the kernel did not remove: tried again until they are gone, or their lifetimes have ended.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use buoy_core::{Epoch, VipName};
use buoy_fence::addr::{AddressError, VALID_LIFETIME};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep};
use tracing::{error, info, warn};

/// Time between two attempts.
const RETRY_EVERY: Duration = Duration::from_millis(100);
/// The kernel has taken an address away by then that nobody refreshes: it counts whole seconds, and is up to half a
/// second late.
const LIFETIME_OVER: Duration = Duration::from_secs(VALID_LIFETIME as u64 + 1);

/// A VIP that is on its way down, and all its addresses.
pub type Lowering = ((VipName, Epoch), Vec<IpAddr>);

/// Takes apart what could be removed and what not. `results` are those of all addresses in order; says what failed.
pub fn sort(
    vips: Vec<Lowering>,
    results: Vec<Result<(), AddressError>>,
) -> (Vec<Lowering>, Vec<Lowering>) {
    let mut results = results.into_iter();
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    for (key, addresses) in vips {
        let mut all = true;
        for ip in &addresses {
            if let Some(Err(e)) = results.next() {
                all = false;
                error!(
                    vip = %key.0, epoch = %key.1,
                    "address {ip} was not removed: {e}; the packet gate is shut over it, and it is tried again until its lifetime ends, within {LIFETIME_OVER:?}"
                );
            }
        }
        match all {
            true => gone.push((key, addresses)),
            false => left.push((key, addresses)),
        }
    }
    (gone, left)
}

/// Removes the addresses of `left` until they are gone, and hands on each VIP that has none left. One whose addresses
/// cannot be removed is handed on when their lifetimes have ended: nothing waits for ever.
pub async fn until_gone<R>(
    mut left: Vec<Lowering>,
    remove: impl Fn(Vec<IpAddr>) -> R,
    gone: UnboundedSender<Lowering>,
) where
    R: Future<Output = Vec<Result<(), AddressError>>>,
{
    // Monotonic, which stands while the machine is suspended, as the kernel's count of lifetimes does. The last refresh
    // lies before: whatever is to be removed is no longer refreshed.
    let began = Instant::now();
    while !left.is_empty() && began.elapsed() < LIFETIME_OVER {
        sleep(RETRY_EVERY).await;
        let ips: Vec<IpAddr> = left.iter().flat_map(|(_, a)| a.iter().copied()).collect();
        let results = remove(ips.clone()).await;
        let failed: BTreeSet<IpAddr> = ips
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.is_err())
            .map(|(ip, _)| *ip)
            .collect();
        left.retain(|lowering| {
            let ((vip, epoch), addresses) = lowering;
            if addresses.iter().any(|ip| failed.contains(ip)) {
                return true;
            }
            info!(%vip, %epoch, "its addresses are removed now, after {:.1?}", began.elapsed());
            hand_on(&gone, lowering.clone());
            false
        });
    }
    for lowering in left {
        let ((vip, epoch), _) = &lowering;
        warn!(
            %vip, %epoch,
            "the kernel never removed its addresses; their lifetimes of {VALID_LIFETIME} s have ended"
        );
        hand_on(&gone, lowering);
    }
}

fn hand_on(gone: &UnboundedSender<Lowering>, lowering: Lowering) {
    // The receiver is gone only when the daemon stops.
    let _ = gone.send(lowering);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn lowering(name: &str, last: &[u8]) -> Lowering {
        let key = (name.parse().unwrap(), Epoch(7));
        (key, last.iter().map(|n| ip(*n)).collect())
    }

    fn refusal(ip: IpAddr) -> AddressError {
        AddressError::Netlink {
            action: buoy_fence::addr::Action::Remove,
            ip,
            interface: "eth0".to_owned(),
            problem: "no buffer space".to_owned(),
        }
    }

    #[test]
    fn a_vip_is_down_only_without_any_address() {
        let vips = vec![lowering("a", &[1, 2]), lowering("b", &[3])];
        let results = vec![Ok(()), Err(refusal(ip(2))), Ok(())];
        let (gone, left) = sort(vips, results);
        assert_eq!(gone, [lowering("b", &[3])]);
        assert_eq!(left, [lowering("a", &[1, 2])]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_removed_at_last_is_handed_on_then_and_the_rest_after_its_lifetime() {
        let (tx, mut gone) = unbounded_channel();
        let attempts = Cell::new(0);
        let remove = |ips: Vec<IpAddr>| {
            attempts.set(attempts.get() + 1);
            let attempt = attempts.get();
            async move {
                let stays = |ip: &IpAddr| *ip == super::tests::ip(3) || attempt < 3;
                let answer = |ip| if stays(&ip) { Err(refusal(ip)) } else { Ok(()) };
                ips.into_iter().map(answer).collect()
            }
        };
        let began = Instant::now();
        let left = vec![lowering("a", &[1, 2]), lowering("b", &[3])];
        let arrived = async {
            let first = gone.recv().await.unwrap();
            assert_eq!(first, lowering("a", &[1, 2]));
            assert_eq!(began.elapsed().as_millis() / 10, 30);
            let last = gone.recv().await.unwrap();
            assert_eq!(last, lowering("b", &[3]));
            assert!(began.elapsed() >= LIFETIME_OVER);
            assert_eq!(gone.recv().await, None, "each is handed on once");
        };
        tokio::join!(until_gone(left, remove, tx), arrived);
        assert!(began.elapsed() < LIFETIME_OVER + Duration::from_secs(1));
    }
}
