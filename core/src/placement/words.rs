//! Figures and lists as people read them.

use std::time::Duration;

/// "212 ms", "12.3 s".
pub(super) fn span(d: Duration) -> String {
    if d < Duration::from_secs(10) {
        format!("{} ms", d.as_millis())
    } else {
        format!("{:.1} s", d.as_secs_f64())
    }
}

/// "1 VIP", "3 VIPs".
pub(super) fn vips(n: usize) -> String {
    if n == 1 {
        "1 VIP".to_owned()
    } else {
        format!("{n} VIPs")
    }
}

/// Names with commas; many are cut short.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 8;
    let all: Vec<String> = items.into_iter().map(|i| i.to_string()).collect();
    if all.len() <= SHOWN {
        return all.join(", ");
    }
    format!("{} and {} more", all[..SHOWN].join(", "), all.len() - SHOWN)
}
