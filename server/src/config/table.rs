//! Typed access to a table of the file: what is missing, unknown or of a wrong type becomes a problem.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::places::split_expected;
use super::problem::{Problem, Problems};
use super::schema::{Key, Kind, Missing, Section, section};
use super::words::{closest, elsewhere, list, printable};

/// A value of the file and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub value: T,
    pub span: Range<usize>,
}

impl<T> At<T> {
    pub fn new(value: T, span: Range<usize>) -> At<T> {
        At { value, span }
    }
}

type Value<'a> = Spanned<DeValue<'a>>;

/// A list of texts.
pub(super) struct Texts<'a> {
    pub items: Vec<At<&'a str>>,
    pub span: Range<usize>,
    /// Everything in the list is text.
    pub complete: bool,
}

/// One table of the file, checked for unknown keys.
#[derive(Clone)]
pub(super) struct Table<'a> {
    pub section: &'static Section,
    pub span: Range<usize>,
    content: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    /// Takes `content` as the table `path` of the schema. Unknown keys are problems.
    pub fn open(
        path: &str,
        content: &'a DeTable<'a>,
        span: Range<usize>,
        problems: &mut Problems,
    ) -> Option<Table<'a>> {
        let section = section(path)?;
        let table = Table {
            section,
            span,
            content,
        };
        for key in content.keys() {
            if !section.names().any(|n| n == key.get_ref()) {
                problems.push(table.unknown(key));
            }
        }
        Some(table)
    }

    fn unknown(&self, key: &Spanned<toml::de::DeString<'_>>) -> Problem {
        let name = key.get_ref();
        let header = self.section.header();
        let known: Vec<&str> = self.section.names().collect();
        let hint = match closest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => match elsewhere(name) {
                Some(header) => format!("`{name}` belongs in {header}"),
                None => format!("{header} knows {}", list(&known)),
            },
        };
        Problem::new(
            key.span(),
            format!("unknown key `{}` in {header}", printable(name)),
            "not a key of this table",
        )
        .expected(format!("one of {}", list(&known)))
        .hint(hint)
    }

    /// Path of a key for messages: `cluster.node.name`.
    pub fn path_of(&self, name: &str) -> String {
        if self.section.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.section.path)
        }
    }

    /// Does the key stand here, whatever its value?
    pub fn has(&self, name: &str) -> bool {
        self.content.contains_key(name)
    }

    fn key(&self, name: &str) -> Option<&'static Key> {
        let key = self.section.key(name);
        debug_assert!(
            key.is_some(),
            "{name} is not in the schema of {}",
            self.section.path
        );
        key
    }

    /// The value of a key; a problem if it is missing and has no default.
    fn value(&self, name: &str, problems: &mut Problems) -> Option<&'a Value<'a>> {
        let found = self.content.get(name);
        let key = self.key(name)?;
        if found.is_none() && key.missing == Missing::Refused {
            let problem = Problem::new(
                self.span.clone(),
                format!("`{}` is missing", self.path_of(name)),
                format!("expected `{name}` in this table: {}", key.kind.describe()),
            );
            problems.push(
                problem
                    .hint(format!("add a line such as `{}`", key.example))
                    .absence(),
            );
        }
        found
    }

    fn wrong_type(&self, name: &str, value: &Value<'_>) -> Problem {
        let what = self.described(name);
        Problem::new(
            value.span(),
            format!("`{}` must be {what}", self.path_of(name)),
            format!("this is {}", describe(value.get_ref())),
        )
        .expected(what)
        .hint(self.as_in(name))
    }

    fn described(&self, name: &str) -> String {
        self.key(name)
            .map_or_else(String::new, |k| k.kind.describe())
    }

    /// The hint where there is no better one.
    pub fn as_in(&self, name: &str) -> String {
        let example = self.key(name).map_or("", |k| k.example);
        format!("write it as in `{example}`")
    }

    fn take<T>(
        &self,
        name: &str,
        problems: &mut Problems,
        get: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<At<T>> {
        let value = self.value(name, problems)?;
        match get(value.get_ref()) {
            Some(v) => Some(At::new(v, value.span())),
            None => {
                problems.push(self.wrong_type(name, value));
                None
            }
        }
    }

    pub fn text(&self, name: &str, problems: &mut Problems) -> Option<At<&'a str>> {
        self.take(name, problems, DeValue::as_str)
    }

    pub fn flag(&self, name: &str, problems: &mut Problems) -> Option<At<bool>> {
        self.take(name, problems, DeValue::as_bool)
    }

    /// A whole number; the range is the schema's.
    pub fn number(&self, name: &str, problems: &mut Problems) -> Option<At<i64>> {
        let found = self.take(name, problems, whole)?;
        let Kind::Number { min, max } = self.key(name)?.kind else {
            return Some(found);
        };
        if (min..=max).contains(&found.value) {
            return Some(found);
        }
        let range = Kind::Number { min, max }.describe();
        problems.push(
            Problem::new(
                found.span,
                format!("`{}` is out of range", self.path_of(name)),
                format!("expected {range}"),
            )
            .hint(self.as_in(name)),
        );
        None
    }

    /// Text that `parse` understands; its error becomes the problem.
    pub fn parsed<T>(
        &self,
        name: &str,
        problems: &mut Problems,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let text = self.text(name, problems)?;
        match parse(text.value) {
            Ok(value) => Some(At::new(value, text.span)),
            Err(why) => {
                problems.push(self.refused(name, text.span, &why));
                None
            }
        }
    }

    /// One of the words of the schema, translated by `choose`.
    pub fn word<T>(
        &self,
        name: &str,
        problems: &mut Problems,
        choose: impl FnOnce(&str) -> Option<T>,
    ) -> Option<At<T>> {
        let text = self.text(name, problems)?;
        if let Some(value) = choose(text.value) {
            return Some(At::new(value, text.span));
        }
        let key = self.key(name)?;
        let mut problem = Problem::new(
            text.span,
            format!(
                "{:?} is no value of `{}`",
                printable(text.value),
                self.path_of(name)
            ),
            format!("expected {}", key.kind.describe()),
        );
        let near = match key.kind {
            Kind::Word(words) => closest(text.value, words),
            _ => None,
        };
        problem = problem.hint(match near {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => self.as_in(name),
        });
        problems.push(problem);
        None
    }

    /// A list of texts.
    pub fn texts(&self, name: &str, problems: &mut Problems) -> Option<Texts<'a>> {
        let array: At<&DeArray<'_>> = self.take(name, problems, |v| v.as_array())?;
        let mut texts = Texts {
            items: Vec::new(),
            span: array.span,
            complete: true,
        };
        for item in array.value.iter() {
            match item.get_ref().as_str() {
                Some(text) => texts.items.push(At::new(text, item.span())),
                None => {
                    texts.complete = false;
                    problems.push(
                        Problem::new(
                            item.span(),
                            format!("`{}` is a list of texts", self.path_of(name)),
                            format!("this is {}", describe(item.get_ref())),
                        )
                        .expected("text")
                        .hint(self.as_in(name)),
                    );
                }
            }
        }
        Some(texts)
    }

    /// The entries of a table whose keys are free, in the order of the file.
    pub fn entries(
        &self,
        name: &str,
        problems: &mut Problems,
    ) -> Option<Vec<(At<&'a str>, &'a Value<'a>)>> {
        let table = self.take(name, problems, |v| v.as_table())?;
        let mut entries: Vec<_> = table
            .value
            .iter()
            .map(|(k, v)| (At::new(k.get_ref().as_ref(), k.span()), v))
            .collect();
        entries.sort_by_key(|(k, _)| k.span.start);
        Some(entries)
    }

    /// The table `name` inside this one.
    pub fn table(&self, name: &str, problems: &mut Problems) -> Option<Table<'a>> {
        let value = self.content.get(name)?;
        let path = self.path_of(name);
        let Some(table) = value.get_ref().as_table() else {
            problems.push(
                Problem::new(
                    value.span(),
                    format!("`{path}` must be a table"),
                    format!("this is {}", describe(value.get_ref())),
                )
                .expected("a table")
                .hint(format!("write it as `[{path}]` with its keys below")),
            );
            return None;
        };
        Table::open(&path, table, value.span(), problems)
    }

    /// The tables `[[name]]` inside this one, in the order of the file.
    pub fn tables(&self, name: &str, problems: &mut Problems) -> Vec<Table<'a>> {
        let Some(value) = self.content.get(name) else {
            return Vec::new();
        };
        let path = self.path_of(name);
        let mut wrong = |value: &Value<'_>| {
            problems.push(
                Problem::new(
                    value.span(),
                    format!("`{path}` must be a list of tables"),
                    format!("this is {}", describe(value.get_ref())),
                )
                .expected("a list of tables")
                .hint(format!(
                    "write each of them as `[[{path}]]` (two brackets) with its keys below"
                )),
            );
        };
        let Some(array) = value.get_ref().as_array() else {
            wrong(value);
            return Vec::new();
        };
        let mut found = Vec::with_capacity(array.len());
        for item in array.iter() {
            match item.get_ref().as_table() {
                Some(table) => found.push((table, item.span())),
                None => wrong(item),
            }
        }
        found
            .into_iter()
            .filter_map(|(t, span)| Table::open(&path, t, span, problems))
            .collect()
    }

    /// A problem with a value of the right type.
    pub fn refused(&self, name: &str, span: Range<usize>, why: &str) -> Problem {
        let (what, expected) = split_expected(why);
        let problem = Problem::new(span, format!("`{}`: {what}", self.path_of(name)), expected);
        let problem = match problem.expected {
            Some(_) => problem,
            None => problem.expected(self.described(name)),
        };
        problem.hint(self.as_in(name))
    }
}

/// A whole number that fits.
pub(super) fn whole(value: &DeValue<'_>) -> Option<i64> {
    let integer = value.as_integer()?;
    i64::from_str_radix(&integer.as_str().replace('_', ""), integer.radix()).ok()
}

/// What a value is, for people.
pub(super) fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
