//! `buoy lab link`, `partition` and `loss`: the network's faults.

use std::str::FromStr;

use anyhow::{Result, bail};
use clap::Args;

use super::{Cable, Usage, Which, known};
use crate::cluster::Lab;
use crate::switch::protocol::Faults;

/// A probability, written as a percentage.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Percent(f64);

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        match number.parse::<f64>() {
            Ok(value) if (0.0..=100.0).contains(&value) => Ok(Self(value / 100.0)),
            _ => Err(format!("expected a percentage, 0% to 100%, got '{text}'")),
        }
    }
}

/// Arguments of `loss`.
#[derive(Args, Debug)]
pub struct LossArgs {
    #[command(flatten)]
    which: Which,
    /// Frames that are lost.
    #[arg(long, value_name = "PERCENT")]
    loss: Option<Percent>,
    /// Frames that arrive twice.
    #[arg(long, value_name = "PERCENT")]
    dup: Option<Percent>,
    /// Frames that are overtaken by later ones.
    #[arg(long, value_name = "PERCENT")]
    reorder: Option<Percent>,
    /// Delay of every frame, ms.
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    delay: f64,
    /// Further random delay, 0 to this, ms.
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    jitter: f64,
    /// Only what enters and leaves this node (or `client`); without it, every link.
    #[arg(long)]
    node: Option<String>,
}

pub(super) fn loss(args: &LossArgs) -> Result<()> {
    let lab = Lab::open(&args.which.name)?;
    let share = |percent: Option<Percent>| percent.unwrap_or_default().0;
    let faults = Faults {
        loss: share(args.loss),
        duplicate: share(args.dup),
        reorder: share(args.reorder),
        delay_ms: args.delay,
        jitter_ms: args.jitter,
    };
    if let Err(why) = faults.check() {
        bail!(Usage(why));
    }
    match &args.node {
        Some(node) => {
            known(&lab, node, true)?;
            lab.switch().port_faults(Some(node), faults)?;
        }
        None => {
            lab.switch().link_faults(None, None, faults)?;
        }
    }
    Ok(())
}

pub(super) fn link(which: &Which, node: &str, cable: Cable) -> Result<()> {
    let lab = Lab::open(&which.name)?;
    known(&lab, node, true)?;
    if lab.is_crashed(node) {
        bail!(
            "the machine {node} is off; `buoy lab start{} {node}` boots it",
            if which.name == "lab" {
                String::new()
            } else {
                format!(" --name {}", which.name)
            }
        );
    }
    lab.switch().cable(node, cable == Cable::Up).map(drop)
}

pub(super) fn partition(which: &Which, words: &[String]) -> Result<()> {
    let lab = Lab::open(&which.name)?;
    let groups = groups(words).map_err(Usage)?;
    for name in groups.iter().flatten() {
        known(&lab, name, true)?;
    }
    lab.switch().partition(&groups).map(drop)
}

/// Reads `n1,n2 / n3`, however it was split into words.
fn groups(words: &[String]) -> Result<Vec<Vec<String>>, String> {
    let text = words.join(" ");
    let groups: Vec<Vec<String>> = text
        .split('/')
        .map(|group| {
            let names = group.split([',', ' ']).filter(|name| !name.is_empty());
            names.map(str::to_owned).collect()
        })
        .collect();
    if groups.len() < 2 || groups.iter().any(Vec::is_empty) {
        return Err(format!(
            "'{text}' divides nothing; expected two groups or more, such as `n1,n2 / n3`"
        ));
    }
    let mut names: Vec<_> = groups.iter().flatten().collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(format!("'{}' is in two groups", pair[0])),
        None => Ok(groups),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Vec<Vec<String>>, String> {
        groups(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn partitions_are_read_however_they_are_spaced() {
        let expected = vec![vec!["n1".to_owned(), "n2".into()], vec!["n3".to_owned()]];
        for words in [
            &["n1,n2", "/", "n3"][..],
            &["n1,", "n2", "/n3"],
            &["n1,n2/n3"],
            &["n1 n2 / n3"],
        ] {
            assert_eq!(read(words).unwrap(), expected, "{words:?}");
        }
        assert_eq!(read(&["n1/n2/n3"]).unwrap().len(), 3);
        for words in [&["n1,n2"][..], &["n1", "/"], &["/"], &["n1/n2,n1"]] {
            assert!(read(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn percentages_are_percentages() {
        assert_eq!("5%".parse(), Ok(Percent(0.05)));
        assert_eq!("100".parse(), Ok(Percent(1.0)));
        for text in ["101%", "-1", "five", "", "NaN"] {
            assert!(text.parse::<Percent>().is_err(), "{text}");
        }
    }
}
