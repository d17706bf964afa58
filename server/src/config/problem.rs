//! What is wrong with a configuration file, where, and what to do: as miette diagnostics.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, NamedSource,
    SourceCode, SourceSpan, SpanContents,
};

/// Width in columns of rendered problems.
const WIDTH: usize = 110;

/// Most problems that are kept of one file; what comes after them is counted only.
pub const MAX_PROBLEMS: usize = 100;

/// The text of a file and its name, shared by all problems found in it.
#[derive(Clone)]
pub struct Source(Arc<NamedSource<String>>);

impl Source {
    /// The text that was read from `name`.
    pub fn new(name: impl AsRef<str>, text: String) -> Source {
        Source(Arc::new(NamedSource::new(name, text)))
    }

    /// Name of the file.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Its text.
    pub fn text(&self) -> &str {
        self.0.inner()
    }

    /// Line and column, both from 1, of a byte offset; the column counts characters.
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let text = self.text();
        let mut offset = offset.min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

impl SourceCode for Source {
    /// Without context lines (as the handler asks for a position): the span. Else: whole lines, and no
    /// others.
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        if before == 0 && after == 0 {
            return self.0.read_span(span, 0, 0);
        }
        let text = self.text().as_bytes();
        let (first, last) = (span.offset(), span.offset() + span.len());
        let (Some(head), Some(tail)) = (text.get(..first), text.get(last..)) else {
            return Err(MietteError::OutOfBounds);
        };
        let start = head.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
        let end = tail
            .iter()
            .position(|b| *b == b'\n')
            .map_or(text.len(), |i| last + i);
        self.0.read_span(&(start, end - start).into(), 0, 0)
    }
}

impl fmt::Debug for Source {
    /// The name only: the text would drown what it is printed with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.name()).finish()
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What was expected; `None` where the message says it all.
    pub expected: Option<String>,
    /// What is there instead; `None` where that is the message.
    pub found: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Bytes of the text that it is about.
    pub span: Range<usize>,
    /// Another place that it conflicts with, and what is there.
    pub other: Option<(Range<usize>, String)>,
    /// Something is not there; where the file cannot be read entirely, that means nothing.
    absence: bool,
    source: Option<Source>,
}

impl Problem {
    /// A problem at `span`. `there` is what was expected, if it begins with that word, else what is there;
    /// empty: neither.
    pub fn new(
        span: Range<usize>,
        message: impl Into<String>,
        there: impl Into<String>,
    ) -> Problem {
        let there: String = there.into();
        let (expected, found) = match there.strip_prefix("expected ") {
            Some(expected) => (Some(expected.to_owned()), None),
            None => (None, (!there.is_empty()).then_some(there)),
        };
        Problem {
            message: message.into(),
            expected,
            found,
            hint: None,
            span,
            other: None,
            absence: false,
            source: None,
        }
    }

    /// It is about something that is not there.
    pub(super) fn absence(mut self) -> Problem {
        self.absence = true;
        self
    }

    /// With what was expected, where the place shows what is there.
    pub fn expected(mut self, what: impl Into<String>) -> Problem {
        self.expected = Some(what.into());
        self
    }

    /// What is shown at the place.
    pub fn label(&self) -> String {
        match (&self.found, &self.expected) {
            (Some(found), _) => found.clone(),
            (None, Some(expected)) => format!("expected {expected}"),
            (None, None) => "not accepted".to_owned(),
        }
    }

    /// With what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint = Some(hint.into());
        self
    }

    /// With the place that it conflicts with.
    pub fn other(mut self, span: Range<usize>, text: impl Into<String>) -> Problem {
        self.other = Some((span, text.into()));
        self
    }

    /// Line and column, from 1. `None` when the file could not be read at all.
    pub fn position(&self) -> Option<(usize, usize)> {
        self.source.as_ref().map(|s| s.position(self.span.start))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.hint
            .as_ref()
            .map(|h| Box::new(h) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|s| s as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.source.as_ref()?;
        let label = |text: &str, span: &Range<usize>| {
            LabeledSpan::new(Some(text.to_owned()), span.start, span.len())
        };
        let main = LabeledSpan::new_primary_with_span(Some(self.label()), {
            let length = self.span.len();
            (self.span.start, length)
        });
        let other = self.other.as_ref().map(|(span, text)| label(text, span));
        Some(Box::new(std::iter::once(main).chain(other)))
    }
}

/// Everything that is wrong with a file, in the order of the places.
#[derive(Debug)]
pub struct ConfigErrors {
    name: String,
    problems: Vec<Problem>,
    dropped: usize,
}

impl ConfigErrors {
    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The problems, first place first; at most [`MAX_PROBLEMS`].
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many there are, also those that were not kept.
    pub fn count(&self) -> usize {
        self.problems.len() + self.dropped
    }

    /// The file could not be read at all, so nothing is known about its content.
    pub fn is_unreadable(&self) -> bool {
        self.problems.iter().all(|p| p.source.is_none())
    }

    /// For people: every problem with its line underlined, then how many there are.
    pub fn render(&self, colour: bool) -> String {
        let theme = if colour {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(WIDTH)
            .with_links(false)
            .with_context_lines(1);
        let mut text = String::new();
        for problem in &self.problems {
            if handler.render_report(&mut text, problem).is_err() {
                text.push_str(&problem.message);
            }
            text.push('\n');
        }
        let count = self.count();
        let noun = if count == 1 { "problem" } else { "problems" };
        text.push_str(&format!("{}: {count} {noun}", self.name));
        if self.dropped > 0 {
            text.push_str(&format!(", the first {MAX_PROBLEMS} are shown"));
        }
        text.push('\n');
        text
    }

    /// A file that could not be read: there is no place to show.
    pub(super) fn unreadable(
        path: &Path,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let problem = Problem::new(0..0, message, "").hint(hint);
        ConfigErrors {
            name: path.display().to_string(),
            problems: vec![problem],
            dropped: 0,
        }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects problems while a file is read.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    dropped: usize,
}

impl Problems {
    pub fn push(&mut self, problem: Problem) {
        if self.list.len() < MAX_PROBLEMS {
            self.list.push(problem);
        } else {
            self.dropped += 1;
        }
    }

    pub fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        problems.into_iter().for_each(|p| self.push(p));
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.list.len() + self.dropped
    }

    /// Adds errors of the syntax. What else was found stays, unless the broken lines may be the reason.
    pub fn add_syntax_errors(&mut self, text: &str, errors: &[toml::de::Error]) {
        if errors.is_empty() {
            return;
        }
        let line = |at: usize| text.bytes().take(at).filter(|b| *b == b'\n').count();
        let place = |e: &toml::de::Error| e.span().unwrap_or(0..0);
        let broken: Vec<usize> = errors.iter().map(|e| line(place(e).start)).collect();
        self.list
            .retain(|p| !p.absence && !broken.contains(&line(p.span.start)));
        for e in errors {
            self.push(syntax_problem(text, place(e), e.message()));
        }
    }

    /// The errors, or nothing if there were none.
    pub fn into_errors(mut self, source: &Source) -> Result<(), ConfigErrors> {
        if self.list.is_empty() {
            return Ok(());
        }
        let end = source.text().len();
        for problem in &mut self.list {
            problem.source = Some(source.clone());
            problem.span = clamp(&problem.span, end);
            if let Some((span, _)) = &mut problem.other {
                *span = clamp(span, end);
            }
        }
        self.list
            .sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
        Err(ConfigErrors {
            name: source.name().to_owned(),
            problems: self.list,
            dropped: self.dropped,
        })
    }
}

fn syntax_problem(text: &str, place: Range<usize>, message: &str) -> Problem {
    let message = message.lines().next().unwrap_or_default();
    let word = text.get(place.clone()).unwrap_or_default();
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    if word.starts_with(|c: char| c.is_ascii_alphabetic()) && word.chars().all(bare) {
        if message == "duplicate key" {
            return Problem::new(
                place,
                format!("`{word}` stands twice in this table"),
                "expected once",
            )
            .hint("remove one of the two lines");
        }
        return Problem::new(
            place,
            format!("{word} is no TOML value"),
            "expected text in quotes",
        )
        .hint(format!("write \"{word}\""));
    }
    // At the end of a line there is nothing to underline: take the character before it.
    let place = match place.is_empty() && text.get(..place.start).is_some_and(|t| !t.is_empty()) {
        true => place.start - last_len(&text[..place.start])..place.start,
        false => place,
    };
    Problem::new(place, "this is not TOML", message.to_owned())
        .hint("see https://toml.io for how such a file is written")
}

/// Bytes of the last character.
fn last_len(text: &str) -> usize {
    text.chars().next_back().map_or(0, char::len_utf8)
}

/// miette shows nothing at all for a span that reaches past the end.
fn clamp(span: &Range<usize>, end: usize) -> Range<usize> {
    span.start.min(end)..span.end.min(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let s = Source::new("f", "ab\nüx = 1\n".into());
        assert_eq!(s.position(0), (1, 1));
        assert_eq!(s.position(3), (2, 1));
        assert_eq!(s.position(4), (2, 1), "inside a character");
        assert_eq!(s.position(5), (2, 2));
        assert_eq!(s.position(10_000), (3, 1));
    }

    #[test]
    fn problems_are_in_order_and_bounded() {
        let source = Source::new("f.toml", "a = 1\nb = 2\n".into());
        let mut problems = Problems::default();
        problems.push(Problem::new(6..7, "second", "x"));
        problems.push(Problem::new(0..1, "first", "x"));
        for _ in 0..MAX_PROBLEMS {
            problems.push(Problem::new(7..900, "more", "x"));
        }
        let errors = problems.into_errors(&source).unwrap_err();
        assert_eq!(errors.problems().len(), MAX_PROBLEMS);
        assert_eq!(errors.count(), MAX_PROBLEMS + 2);
        assert_eq!(errors.problems()[0].message, "first");
        assert_eq!(errors.problems()[1].position(), Some((2, 1)));
        let text = errors.render(false);
        assert!(
            text.contains("f.toml:1:1") && text.contains("102 problems"),
            "{text}"
        );
    }
}
