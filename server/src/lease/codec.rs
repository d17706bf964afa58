//! Lease messages as bytes: one version byte, then postcard.

use std::io;

use buoy_core::lease::{Answer, Renew};
use serde::{Deserialize, Serialize};

/// Version of the format below. A peer that speaks another one is told apart at the first byte.
pub const VERSION: u8 = 1;

/// Longest message: the full claims of [`buoy_core::spec::MAX_VIPS`] VIPs with a few addresses each.
pub const MAX_MESSAGE: usize = 4 << 20;

/// A message between a holder and a voter.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Message {
    /// Holder to voter.
    Renew(Renew),
    /// Voter to holder.
    Answer(Answer),
}

/// Appends the encoded message to `out`.
pub fn encode(message: &Message, out: Vec<u8>) -> Vec<u8> {
    let mut out = out;
    out.push(VERSION);
    postcard::to_extend(message, out).expect("a lease message has no part that cannot be encoded")
}

/// Decodes one message.
///
/// # Errors
/// `InvalidData` for another version, bytes that are no message, and bytes left over.
pub fn decode(bytes: &[u8]) -> io::Result<Message> {
    let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let (version, body) = bytes
        .split_first()
        .ok_or_else(|| bad("empty lease message".to_owned()))?;
    if *version != VERSION {
        return Err(bad(format!(
            "lease message of version {version}, expected {VERSION}: do all nodes run the same release?"
        )));
    }
    let (message, rest) = postcard::take_from_bytes::<Message>(body)
        .map_err(|e| bad(format!("lease message of {} bytes: {e}", bytes.len())))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(bad(format!(
            "{} bytes left over after a lease message",
            rest.len()
        )))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use buoy_core::lease::{Claim, Claims, Pending, Verdict};
    use buoy_core::{ConfigId, Epoch, Incarnation, NodeId, Session};

    use super::*;

    fn samples() -> Vec<Message> {
        let session = Session {
            node: NodeId(2),
            incarnation: Incarnation(u64::MAX),
        };
        let config = ConfigId { term: 3, index: 9 };
        let claim = Claim {
            address: "192.0.2.1".parse().unwrap(),
            epoch: Epoch(77),
        };
        let lease = Duration::from_millis(300);
        let same = Claims::Same { rev: 4 };
        let full = Claims::Full {
            rev: 5,
            claims: vec![claim],
        };
        let mut all: Vec<Message> = [same, full]
            .into_iter()
            .map(|claims| {
                Message::Renew(Renew {
                    session,
                    seq: 8,
                    config,
                    lease,
                    claims,
                })
            })
            .collect();
        let pending = Pending {
            address: "2001:db8::1".parse().unwrap(),
            wait: lease,
        };
        for verdict in [
            Verdict::Refused,
            Verdict::UnknownRev,
            Verdict::Claims {
                rev: 5,
                denied: vec![claim],
                pending: vec![pending],
            },
        ] {
            all.push(Message::Answer(Answer {
                voter: NodeId(1),
                session,
                seq: 8,
                config,
                verdict,
            }));
        }
        all
    }

    #[test]
    fn every_message_survives_the_wire() {
        for m in samples() {
            assert_eq!(decode(&encode(&m, Vec::new())).unwrap(), m);
        }
    }

    #[test]
    fn a_steady_renewal_fits_a_small_datagram() {
        assert!(encode(&samples()[0], Vec::new()).len() < 64);
    }

    #[test]
    fn damage_is_an_error() {
        for m in samples() {
            let bytes = encode(&m, Vec::new());
            for cut in 0..bytes.len() {
                assert!(decode(&bytes[..cut]).is_err());
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert!(
                decode(&longer)
                    .unwrap_err()
                    .to_string()
                    .contains("left over")
            );
            let mut other = bytes;
            other[0] = 9;
            assert!(
                decode(&other)
                    .unwrap_err()
                    .to_string()
                    .contains("version 9")
            );
        }
    }
}
