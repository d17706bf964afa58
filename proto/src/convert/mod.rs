//! Conversions between the generated types and core's, with errors that name the field.

mod event;
mod spec;
mod vrrp;

pub use spec::{address_texts, parse_address};
pub use vrrp::{declaration, keep_password};

use std::fmt::Display;

/// A message that cannot be what it should: which field, and why.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("field `{field}`: {problem}")]
pub struct ConvertError {
    /// Path of the field from the message, as in `addresses[1]`.
    pub field: String,
    /// What came and what was expected.
    pub problem: String,
}

impl ConvertError {
    /// An error about `field`.
    pub fn new(field: impl Into<String>, problem: impl Display) -> Self {
        Self {
            field: field.into(),
            problem: problem.to_string(),
        }
    }

    /// The same error seen from the message that holds this one as `outer`.
    pub fn within(mut self, outer: &str) -> Self {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

fn unknown_value(field: &str, value: i32) -> ConvertError {
    ConvertError::new(
        field,
        format!("{value} is no value of this enumeration (is the other side newer?)"),
    )
}

/// An empty string where absence has no other form.
fn absent_if_empty(s: &str) -> Option<&str> {
    (!s.is_empty()).then_some(s)
}
