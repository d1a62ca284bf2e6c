//! Reads calls whose name stands before their arguments: `name[ARGS]{…}` and the like.

use super::json::{Arguments, Tracker};
use super::out::Out;
use super::{Progress, UNKNOWN_TOOL};

/// The longest text between a call's marker and its arguments.
const MAX_HEAD: usize = 512;

/// One call, as it arrives.
pub(super) struct Named {
    /// What announced it.
    raw: String,
    /// What stands before the arguments, with the name in it.
    head: String,
    /// The name, where it came in `raw`.
    name: Option<String>,
    arguments: Option<Arguments>,
    /// Follows the arguments of an unknown tool, which are text.
    spilt: Option<Tracker>,
}

impl Named {
    /// A call whose name comes next.
    pub(super) fn new(raw: String) -> Self {
        Self { raw, head: String::new(), name: None, arguments: None, spilt: None }
    }

    /// A call of `name`, whose arguments come next.
    pub(super) fn of(raw: String, name: String) -> Self {
        Self { name: Some(name), ..Self::new(raw) }
    }

    /// Whether a call has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        self.arguments.is_some()
    }

    /// What came and was not given out.
    pub(super) fn take_raw(&mut self) -> String {
        let head = std::mem::take(&mut self.head);
        std::mem::take(&mut self.raw) + &head
    }

    pub(super) fn feed(&mut self, c: char, out: &mut Out) -> Progress {
        if let Some(json) = &mut self.spilt {
            if json.feed(c).is_err() {
                return Progress::Spoilt { again: true };
            }
            out.text(c.encode_utf8(&mut [0; 4]));
            return if json.is_done() { Progress::Passed } else { Progress::More };
        }
        if self.arguments.is_none() && c != '{' {
            return self.in_head(c);
        }
        if self.arguments.is_none() {
            let name = self.name.take().unwrap_or_else(|| name_in(&self.head).to_owned());
            if out.tool(&name).is_none() {
                out.text(&self.take_raw());
                out.warn(UNKNOWN_TOOL);
                self.spilt = Some(Tracker::new());
                return self.feed(c, out);
            }
            out.begin(&name);
            self.take_raw();
        }
        let arguments = self.arguments.get_or_insert_with(Arguments::new);
        let Ok(from) = arguments.feed(c) else { return Progress::Spoilt { again: true } };
        out.arguments(arguments.text().get(from..).unwrap_or_default());
        if !arguments.is_done() {
            return Progress::More;
        }
        out.end();
        self.arguments = None;
        Progress::Done
    }

    fn in_head(&mut self, c: char) -> Progress {
        if self.head.len() >= MAX_HEAD || (self.name.is_some() && !c.is_whitespace()) {
            return Progress::Spoilt { again: true };
        }
        self.head.push(c);
        Progress::More
    }
}

/// The name in what stands before the arguments:
/// `name[ARGS]`, `name[CALL_ID]id[ARGS]`, `name`, ``function<sep>name\n```json\n``, `name<sep>`.
fn name_in(head: &str) -> &str {
    let head = head.trim().trim_end_matches("```json").trim_end();
    if let Some((kind, name)) = head.split_once("<｜tool▁sep｜>") {
        return if name.is_empty() { kind.trim() } else { name.trim() };
    }
    let end = head.find("[CALL_ID]").or_else(|| head.find("[ARGS]")).unwrap_or(head.len());
    head.get(..end).unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found() {
        for head in [
            "f",
            " f ",
            "f[ARGS]",
            "f[CALL_ID]abc123def[ARGS]",
            "function<｜tool▁sep｜>f\n```json\n",
            "f<｜tool▁sep｜>",
        ] {
            assert_eq!(name_in(head), "f", "{head}");
        }
    }
}
