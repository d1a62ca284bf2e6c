//! Divides an answer's bytes into frames: server-sent events, or lines of JSON.
//!
//! Incremental: however the bytes are cut, the frames are the same. Bounded: no vendor can make it hold more
//! than [`MOST_FRAME_BYTES`].

use std::collections::VecDeque;

use crate::protocol::{Frame, Framing};

/// The most bytes of one line, and of one frame.
pub const MOST_FRAME_BYTES: usize = 8 * 1024 * 1024;

/// Bytes that are no frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame is longer than [`MOST_FRAME_BYTES`].
    #[error("a frame of more than {MOST_FRAME_BYTES} bytes")]
    TooLong,
    /// A line is no UTF-8.
    #[error("a line that is no UTF-8")]
    NotText,
}

/// A frame, kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// The event's name; empty where it has none.
    pub event: String,
    /// What it holds.
    pub data: String,
}

impl Owned {
    /// The frame as readers take it.
    pub fn frame(&self) -> Frame<'_> {
        Frame { event: &self.event, data: &self.data }
    }
}

/// Divides the bytes of one answer.
#[derive(Debug)]
pub struct Frames {
    framing: Framing,
    line: Vec<u8>,
    /// The last byte was a CR: an LF that follows belongs to it.
    after_cr: bool,
    first: bool,
    open: Owned,
    has_data: bool,
    ready: VecDeque<Owned>,
}

impl Frames {
    /// For an answer so divided.
    pub fn new(framing: Framing) -> Self {
        Self {
            framing,
            line: Vec::new(),
            after_cr: false,
            first: true,
            open: Owned::default(),
            has_data: false,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// They are no frames. Frames before the fault can still be had.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        while let Some(end) = rest.iter().position(|&byte| self.ends_line(byte)) {
            let (line, after) = rest.split_at(end);
            self.extend(line)?;
            self.end_line()?;
            rest = match after {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_cr = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
        }
        self.extend(rest)
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> Option<Owned> {
        self.ready.pop_front()
    }

    /// The connection ended. A last line of JSON needs no line end; an event without its empty line is dropped,
    /// as the standard says.
    ///
    /// # Errors
    /// The last line is no UTF-8.
    pub fn end(&mut self) -> Result<(), FrameError> {
        match self.framing {
            Framing::Lines if !self.line.is_empty() => self.end_line(),
            Framing::Lines | Framing::Sse => Ok(()),
        }
    }

    fn ends_line(&self, byte: u8) -> bool {
        byte == b'\n' || (byte == b'\r' && self.framing == Framing::Sse)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        if self.line.len() + self.open.data.len() + bytes.len() > MOST_FRAME_BYTES {
            return Err(FrameError::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self) -> Result<(), FrameError> {
        let line = std::mem::take(&mut self.line);
        let mut line = std::str::from_utf8(&line).map_err(|_| FrameError::NotText)?;
        if std::mem::take(&mut self.first) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        match self.framing {
            Framing::Lines => {
                let data = line.trim();
                if !data.is_empty() {
                    self.ready.push_back(Owned { event: String::new(), data: data.to_owned() });
                }
            }
            Framing::Sse => self.field(line),
        }
        Ok(())
    }

    /// One line of an event, as in the HTML standard, "Interpreting an event stream".
    fn field(&mut self, line: &str) {
        if line.is_empty() {
            let open = std::mem::take(&mut self.open);
            if std::mem::take(&mut self.has_data) {
                self.ready.push_back(open);
            }
            return;
        }
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "data" => {
                if self.has_data {
                    self.open.data.push('\n');
                }
                self.has_data = true;
                self.open.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.open.event),
            // `id` and `retry` are for clients that connect again; a comment's name is empty.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
