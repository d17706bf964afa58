//! Where output goes: tables for people, JSON for programs, and no panic when the reader has gone.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

use crate::error::Failure;

/// Standard output.
pub struct Output {
    /// JSON instead of tables.
    pub json: bool,
    out: Box<dyn Write>,
    terminal: bool,
}

impl Output {
    /// Standard output.
    pub fn stdout(json: bool) -> Output {
        let terminal = io::stdout().is_terminal();
        Output {
            json,
            out: Box::new(io::stdout()),
            terminal,
        }
    }

    /// Is a person looking?
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Text for people; its last line is ended.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            self.out.write_all(b"\n")?;
        }
        Ok(self.out.flush()?)
    }

    /// One JSON document over several lines.
    pub fn value(&mut self, value: &Value) -> Result<(), Failure> {
        self.text(&format!("{value:#}"))
    }

    /// One JSON document in one line, for streams.
    pub fn line(&mut self, value: &Value) -> Result<(), Failure> {
        self.text(&value.to_string())
    }

    /// The JSON value or the text, whichever was asked for.
    pub fn either(
        &mut self,
        value: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json {
            self.value(&value())
        } else {
            self.text(&text())
        }
    }

    /// On a terminal: makes room for the next picture.
    pub fn clear(&mut self) -> Result<(), Failure> {
        if self.terminal {
            self.out.write_all(b"\x1b[H\x1b[2J")?;
        }
        Ok(())
    }
}
