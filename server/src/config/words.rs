//! Words for messages: what may have been meant, and text of a file made fit to show.

use super::schema::SECTIONS;

/// The known word that looks most like `name`, if one does.
pub(super) fn closest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let wanted = name.to_lowercase().replace('-', "_");
    // Longer than any key: nothing is near, and comparing would cost its length.
    if wanted.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|k| {
            (
                strsim::damerau_levenshtein(&wanted, &k.replace('-', "_")),
                *k,
            )
        })
        .filter(|(distance, k)| *distance <= k.len().div_ceil(3))
        .min()
        .map(|(_, k)| k)
}

/// The header of the only other table that has a key of this name.
pub(super) fn elsewhere(name: &str) -> Option<String> {
    let mut found = SECTIONS.iter().filter(|s| s.names().any(|n| n == name));
    let first = found.next()?;
    found.next().is_none().then(|| first.header())
}

pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
    quoted.join(", ")
}

/// Text of a file as it can stand in a message: no control characters, not too long.
pub(super) fn printable(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut shown: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_or_none() {
        let known = ["listen", "socket", "data_dir", "fence", "name"];
        assert_eq!(closest("lisen", &known), Some("listen"));
        assert_eq!(closest("data-dir", &known), Some("data_dir"));
        assert_eq!(closest("Name", &known), Some("name"));
        assert_eq!(closest("frobnicate", &known), None);
        assert_eq!(closest(&"x".repeat(10_000), &known), None);
    }

    #[test]
    fn a_key_of_another_table_is_pointed_to() {
        assert_eq!(elsewhere("insecure").as_deref(), Some("[cluster]"));
        assert_eq!(elsewhere("name"), None, "several tables have it");
    }

    #[test]
    fn shown_text_is_short_and_printable() {
        assert_eq!(printable("a\u{1b}[31mb"), "a?[31mb");
        assert!(printable(&"x".repeat(100)).chars().count() == 61);
    }
}
