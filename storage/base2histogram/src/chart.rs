//! Histograms as text, one bar a bucket.

use std::fmt;

use super::{Histogram, lowest};

/// Width of the longest bar, in characters.
const BAR: u64 = 40;

/// Histograms under their names.
#[derive(Clone, Debug)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

impl<T> AsciiChart<T> {
    /// A chart of nothing.
    pub fn new() -> Self {
        Self { series: Vec::new() }
    }

    /// Adds a histogram.
    #[must_use]
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.series.push((name.to_owned(), histogram));
        self
    }

    /// The chart as text of several lines.
    pub fn detailed(&self) -> DetailedDisplay<'_, T> {
        DetailedDisplay(self)
    }
}

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Text of a chart.
pub struct DetailedDisplay<'a, T>(&'a AsciiChart<T>);

impl<T> fmt::Display for DetailedDisplay<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, histogram) in &self.0.series {
            writeln!(f, "{name} ({} values)", histogram.total())?;
            let most = histogram.filled().map(|(_, count)| count).max();
            for (index, count) in histogram.filled() {
                let bar = u128::from(count) * u128::from(BAR) / u128::from(most.unwrap_or(1));
                let bar = "#".repeat(usize::try_from(bar).unwrap_or(0).max(1));
                writeln!(f, "{:>20} {bar} {count}", lowest(index))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_for_each_bucket_with_values() {
        let mut h = Histogram::<()>::new();
        h.record_n(3, 40);
        h.record(100);
        let text = AsciiChart::new().add("waits", h).detailed().to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "waits (41 values)");
        assert_eq!(lines[1], format!("3 {} 40", "#".repeat(40)));
        assert_eq!(lines[2], "96 # 1");
    }
}
