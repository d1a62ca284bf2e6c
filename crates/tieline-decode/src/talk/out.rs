//! What has been said so far: joins neighbouring pieces, numbers the calls, knows the tools.

use tieline_types::{Private, Tool, ToolCallStep};

use super::Said;

/// What ids are written with.
const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The letters of an id: Mistral's templates take no other length, and nothing but letters and digits.
const ID_LENGTH: usize = 9;
/// How many ids there are: 62 to the ninth.
const IDS: u64 = 13_537_086_546_263_552;
/// From the number of one id to the next one's: near the golden ratio of all, and prime to how many there are, so that
/// none comes twice in an answer.
const STRIDE: u64 = 8_366_379_593_564_371;

/// The id of call `index` of an answer: nine letters and digits, the same for the same seed. Other seeds give other
/// ids: many answers, of several models, stand in one conversation, and clients find a result's call by its id.
pub fn call_id(seed: &str, index: u32) -> String {
    let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(seed.as_bytes()).as_bytes();
    let first = u128::from(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    let (ids, letters) = (u128::from(IDS), LETTERS.len() as u128);
    let mut number = (first + u128::from(index) * u128::from(STRIDE)) % ids;
    let letter = |_| {
        let at = usize::try_from(number % letters).unwrap_or_default();
        number /= letters;
        char::from(LETTERS.get(at).copied().unwrap_or(b'0'))
    };
    (0..ID_LENGTH).map(letter).collect()
}

/// Where a parser's findings go.
pub(super) struct Out {
    said: Vec<Said>,
    tools: Vec<Tool>,
    id_seed: String,
    calls: u32,
    ended: u32,
}

impl Out {
    pub(super) fn new(tools: &[Tool], id_seed: &str) -> Self {
        let (said, id_seed) = (Vec::new(), id_seed.to_owned());
        Self { said, tools: tools.to_vec(), id_seed, calls: 0, ended: 0 }
    }

    pub(super) fn take(&mut self) -> Vec<Said> {
        std::mem::take(&mut self.said)
    }

    /// Whether a call was completed.
    pub(super) fn called(&self) -> bool {
        self.ended > 0
    }

    pub(super) fn text(&mut self, text: &str) {
        match self.said.last_mut() {
            _ if text.is_empty() => {}
            Some(Said::Text(last)) => last.push_str(text),
            _ => self.said.push(Said::Text(text.to_owned())),
        }
    }

    pub(super) fn reasoning(&mut self, text: &str) {
        match self.said.last_mut() {
            _ if text.is_empty() => {}
            Some(Said::Reasoning(last)) => last.push_str(text),
            _ => self.said.push(Said::Reasoning(text.to_owned())),
        }
    }

    /// `warning` must not quote the answer: warnings reach logs.
    pub(super) fn warn(&mut self, warning: &str) {
        self.said.push(Said::Warning(warning.to_owned()));
    }

    /// The tool that a model means by `name`: some write the name space that templates show.
    pub(super) fn tool(&self, name: &str) -> Option<&Tool> {
        let by_name = |name: &str| self.tools.iter().find(|tool| tool.name == name);
        by_name(name).or_else(|| by_name(name.strip_prefix("functions.")?))
    }

    /// Begins a call. `name` must be a tool's.
    pub(super) fn begin(&mut self, name: &str) {
        let name = self.tool(name).map_or(name, |tool| &tool.name).to_owned();
        let index = self.calls;
        self.calls = self.calls.saturating_add(1);
        let id = call_id(&self.id_seed, index);
        self.said.push(Said::Call(ToolCallStep::Begin { index, id, name }));
    }

    /// More arguments of the call begun last.
    pub(super) fn arguments(&mut self, more: &str) {
        let now = self.calls.saturating_sub(1);
        if let Some(Said::Call(ToolCallStep::Arguments { index, text })) = self.said.last_mut()
            && *index == now
        {
            let mut joined = std::mem::take(text).into_inner();
            joined.push_str(more);
            *text = Private::new(joined);
            return;
        }
        let step = ToolCallStep::Arguments { index: now, text: Private::new(more) };
        self.said.push(Said::Call(step));
    }

    /// Ends the call begun last.
    pub(super) fn end(&mut self) {
        let index = self.calls.saturating_sub(1);
        self.ended = self.ended.saturating_add(1);
        self.said.push(Said::Call(ToolCallStep::End { index }));
    }

    /// A whole call at once.
    pub(super) fn call(&mut self, name: &str, arguments: &str) {
        self.begin(name);
        self.arguments(arguments);
        self.end();
    }
}
