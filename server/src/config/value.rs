//! Reads durations and socket addresses from text, with errors that say what was expected.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use buoy_proto::DEFAULT_PORT;

/// Longest duration of any setting.
pub const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);

const DURATION_EXPECTED: &str =
    "expected a number with a unit (us, ms, s, m or h), as in \"75ms\", \"1.5s\" or \"2m\"";

/// Reads `75ms`, `1.5s`, `2m`: a decimal number and a unit of us, ms, s, m or h, at most [`MAX_DURATION`].
///
/// # Errors
/// What was wrong and what was expected, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let trimmed = text.trim();
    let unit_at = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..unit_at], trimmed[unit_at..].trim_start());
    let nanos: u128 = match unit {
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" | "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err(format!("{text:?} has no unit; {DURATION_EXPECTED}")),
        _ => return Err(format!("{text:?} is no duration; {DURATION_EXPECTED}")),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |s: &str| !s.is_empty() && s.len() <= 9 && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return Err(format!("{text:?} is no duration; {DURATION_EXPECTED}"));
    }
    // At most nine digits each, checked above: neither parse nor product can fail or overflow.
    let parsed = |s: &str| s.parse::<u128>().unwrap_or(0);
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(9));
    let total = parsed(whole) * nanos + parsed(fraction) * nanos / scale;
    let total = u64::try_from(total)
        .map(Duration::from_nanos)
        .unwrap_or(Duration::MAX);
    if total > MAX_DURATION {
        return Err(format!("{text:?} is too long: at most \"24h\""));
    }
    Ok(total)
}

/// A duration as [`parse_duration`] reads it, in the largest unit that needs no fraction.
pub fn format_duration(d: Duration) -> String {
    let nanos = d.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    for (unit, size) in [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
    ] {
        if nanos.is_multiple_of(size) {
            return format!("{}{unit}", nanos / size);
        }
    }
    format!("{}us", nanos.div_ceil(1_000))
}

/// Reads `ip:port`, `[ip6]:port`, or an address alone, which gets [`DEFAULT_PORT`].
///
/// # Errors
/// What was wrong and what was expected, in words.
pub fn parse_socket(text: &str) -> Result<SocketAddr, String> {
    let expected = "expected IP:PORT as in \"10.0.0.1:7400\" or \"[2001:db8::1]:7400\"";
    let address = if let Ok(address) = text.parse::<SocketAddr>() {
        address
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        SocketAddr::new(ip, DEFAULT_PORT)
    } else {
        let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
        let why = if host.parse::<IpAddr>().is_ok() {
            "its port is not a number of 1 to 65535"
        } else if host.contains(|c: char| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit()) {
            "host names are not looked up (nodes must find each other when DNS is down)"
        } else {
            "it is no address"
        };
        return Err(format!("{text:?} cannot be used: {why}; {expected}"));
    };
    if address.port() == 0 {
        return Err(format!("{text:?} has port 0; {expected}"));
    }
    if address.ip().is_multicast() {
        return Err(format!("{text:?} is a multicast address; {expected}"));
    }
    Ok(address)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, micros) in [
            ("75ms", 75_000),
            ("1.5s", 1_500_000),
            ("0s", 0),
            ("2m", 120_000_000),
            ("250 us", 250),
            (" 24h ", 86_400_000_000),
            ("0.25ms", 250),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_micros(micros)),
                "{text}"
            );
        }
        for (text, words) in [
            ("75", "no unit"),
            ("", "no unit"),
            ("ms", "no duration"),
            ("-5ms", "no duration"),
            ("1.ms", "no duration"),
            ("1..5s", "no duration"),
            ("5 weeks", "no duration"),
            ("25h", "too long"),
            ("999999999h", "too long"),
            ("99999999999999999999ms", "no duration"),
        ] {
            let e = parse_duration(text).unwrap_err();
            assert!(e.contains(words), "{text}: {e}");
        }
    }

    #[test]
    fn sockets() {
        for (text, address) in [
            ("10.0.0.1:99", "10.0.0.1:99"),
            ("10.0.0.1", "10.0.0.1:7400"),
            ("2001:db8::1", "[2001:db8::1]:7400"),
            ("[::]:1", "[::]:1"),
        ] {
            assert_eq!(parse_socket(text).unwrap().to_string(), address);
        }
        for (text, words) in [
            ("n1:7400", "not looked up"),
            ("10.0.0.1:x", "1 to 65535"),
            ("10.0.0.1:0", "port 0"),
            ("300.0.0.1:7", "no address"),
            ("224.0.0.18:7", "multicast"),
            ("", "no address"),
        ] {
            let e = parse_socket(text).unwrap_err();
            assert!(e.contains(words), "{text}: {e}");
        }
    }

    proptest! {
        #[test]
        fn formatted_durations_come_back(us in 0_u64..86_400_000_000) {
            let d = Duration::from_micros(us);
            let text = format_duration(d);
            // Long ones in small units have more digits than are read.
            if text.len() <= 9 {
                prop_assert_eq!(parse_duration(&text), Ok(d));
            }
        }

        #[test]
        fn nothing_panics(text in ".*") {
            let _ = parse_duration(&text);
            let _ = parse_socket(&text);
        }
    }
}
