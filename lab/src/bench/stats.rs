//! Minimum, median and maximum of repeated measurements.

use serde::{Deserialize, Serialize};

/// What is said of one figure over its repeats.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// Number of repeats.
    pub count: usize,
    /// Smallest.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// Largest.
    pub max: f64,
}

impl Summary {
    /// The summary of these values; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let count = values.len();
        let (min, max) = (*values.first()?, *values.last()?);
        let median = f64::midpoint(values[(count - 1) / 2], values[count / 2]);
        Some(Self {
            count,
            min,
            median,
            max,
        })
    }

    /// `min / median / max (n)`, each with as many decimals as it deserves.
    #[must_use]
    pub fn words(&self) -> String {
        let Self {
            count,
            min,
            median,
            max,
        } = *self;
        format!(
            "{} / **{}** / {} ({count})",
            number(min),
            number(median),
            number(max)
        )
    }
}

/// A figure for people: one decimal below 100, none above.
#[must_use]
pub fn number(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        let odd = Summary::of([3.0, 1.0, 20.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 3.0, 20.0));
        let even = Summary::of([4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((even.count, even.median), (4, 2.5));
        assert_eq!(Summary::of([]), None);
        assert_eq!(odd.words(), "1.0 / **3.0** / 20.0 (3)");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(3_480.4), "3480");
    }
}
