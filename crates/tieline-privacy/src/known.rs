//! Values that were found before, wherever they stand.
//!
//! A detector may see a value only by the words beside it; who knows the value needs no such words. No automaton is
//! made of the values, since its copy of them could not be wiped: they are sorted, a table of their first bytes says
//! where to look, and what is compared is counted, so that the time is linear in the text.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::detect::{Entity, Finding, is_dense};
use crate::guard::Refusal;

/// A value, shared with whoever keeps it, and wiped with the last of them.
pub(crate) type Value = Arc<Zeroizing<String>>;

/// The fewest characters of a value that is looked for: shorter ones stand for many things.
const SHORTEST: usize = 4;
/// The first bytes, by which a value is looked for.
const HEAD: usize = 4;
/// How many bits of the table there are for each value.
const SPARSE: usize = 64;
/// The fewest and the most bits of the table, as powers of two: what a core's caches hold.
const TABLE: [u32; 2] = [12, 20];
/// The most bytes that are compared for one of the text, and for any text.
const MAX_COMPARED: [usize; 2] = [64, 1 << 20];

/// The fewest of a value that is nothing but figures.
const FEWEST_FIGURES: usize = 6;

/// What the schemas of tools and answers are written with: no value, whatever a detector takes it for.
const SCHEMA: [&str; 49] = [
    "type",
    "object",
    "array",
    "string",
    "number",
    "integer",
    "boolean",
    "null",
    "true",
    "false",
    "properties",
    "required",
    "description",
    "items",
    "enum",
    "title",
    "format",
    "default",
    "const",
    "pattern",
    "patternProperties",
    "propertyNames",
    "prefixItems",
    "additionalProperties",
    "anyOf",
    "oneOf",
    "allOf",
    "$ref",
    "$defs",
    "$schema",
    "definitions",
    "examples",
    "nullable",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "date-time",
    "date",
    "time",
    "email",
    "uuid",
    "strict",
];

/// Values that are looked for in texts.
#[derive(Default)]
pub(crate) struct Known {
    /// By their bytes, each once.
    needles: Vec<Needle>,
    /// A bit for each head, at its hash.
    table: Vec<u64>,
    shift: u32,
}

struct Needle {
    value: Value,
    entity: Entity,
    /// The longest other that this one begins with.
    beginning: Option<usize>,
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known").field("values", &self.needles.len()).finish_non_exhaustive()
    }
}

/// Whether a value says enough to be looked for where nothing tells of it.
pub(crate) fn is_telling(value: &str) -> bool {
    let least =
        if value.bytes().all(|byte| byte.is_ascii_digit()) { FEWEST_FIGURES } else { SHORTEST };
    value.chars().nth(least - 1).is_some()
        && value.chars().any(char::is_alphanumeric)
        && !SCHEMA.contains(&value)
}

impl Known {
    /// These values; of one that comes more than once, the kind that came first.
    pub(crate) fn new(values: impl IntoIterator<Item = (Entity, Value)>) -> Self {
        let telling = values.into_iter().filter(|(_, value)| is_telling(value));
        let needle = |(entity, value)| Needle { value, entity, beginning: None };
        let mut needles: Vec<Needle> = telling.map(needle).collect();
        if needles.is_empty() {
            return Self::default();
        }
        needles.sort_by(|one, other| one.value.cmp(&other.value));
        needles.dedup_by(|next, first| next.value == first.value);
        let mut open: Vec<usize> = Vec::new();
        for at in 0..needles.len() {
            let begins =
                |outer: &usize| needles[at].value.starts_with(needles[*outer].value.as_str());
            while open.last().is_some_and(|outer| !begins(outer)) {
                open.pop();
            }
            needles[at].beginning = open.last().copied();
            open.push(at);
        }
        let bits = (needles.len() * SPARSE).next_power_of_two().ilog2().clamp(TABLE[0], TABLE[1]);
        let mut known = Self { needles, table: vec![0; 1 << (bits - 6)], shift: 32 - bits };
        for at in 0..known.needles.len() {
            if let Some((word, bit)) = known.slot(known.needles[at].value.as_bytes()) {
                known.table[word] |= bit;
            }
        }
        known
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }

    /// Whether this is one of them.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.needles.binary_search_by(|needle| needle.value.as_str().cmp(text)).is_ok()
    }

    /// Every occurrence that no other covers, between borders of words where the value has a letter or figure there.
    ///
    /// # Errors
    /// The text and the values repeat themselves so much that it would take too long.
    pub(crate) fn find(&self, text: &str) -> Result<Vec<Finding>, Refusal> {
        let mut findings = Vec::new();
        if self.is_empty() {
            return Ok(findings);
        }
        let most = MAX_COMPARED[0].saturating_mul(text.len()).saturating_add(MAX_COMPARED[1]);
        let (mut compared, mut covered) = (0_usize, 0);
        for at in 0..text.len().saturating_sub(HEAD - 1) {
            if !self.may_stand(&text.as_bytes()[at..]) || !is_border(text, at) {
                continue;
            }
            let longest = self.longest(text, at, &mut compared);
            if compared > most {
                return Err(Refusal::TooLarge);
            }
            if let Some(Needle { value, entity, .. }) = longest
                && at + value.len() > covered
            {
                covered = at + value.len();
                findings.push(Finding { range: at..covered, entity: *entity });
            }
        }
        Ok(findings)
    }

    /// The longest value that stands at this place.
    fn longest(&self, text: &str, at: usize, compared: &mut usize) -> Option<&Needle> {
        let rest = &text.as_bytes()[at..];
        let mut shared = |needle: &Needle| {
            let same = needle.value.bytes().zip(rest).take_while(|(one, other)| one == *other);
            let same = same.count();
            *compared += same + 1;
            same
        };
        let after = self.needles.partition_point(|needle| {
            let same = shared(needle);
            // A value that ends there is before whatever goes on.
            needle.value.as_bytes().get(same) < rest.get(same) || same == needle.value.len()
        });
        // All that stand here are beginnings of the last that is not after the text.
        let mut next = after.checked_sub(1);
        let shared = next.and_then(|last| self.needles.get(last)).map_or(0, &mut shared);
        while let Some(needle) = next.and_then(|place| self.needles.get(place)) {
            *compared += 1;
            let length = needle.value.len();
            if length <= shared && is_border(text, at + length) {
                return Some(needle);
            }
            next = needle.beginning;
        }
        None
    }

    fn may_stand(&self, rest: &[u8]) -> bool {
        self.slot(rest).is_some_and(|(word, bit)| self.table[word] & bit != 0)
    }

    /// Where the table tells of the first bytes.
    fn slot(&self, rest: &[u8]) -> Option<(usize, u64)> {
        let head = u32::from_le_bytes(*rest.first_chunk::<HEAD>()?);
        // Knuth's multiplier: its upper bits depend on all of the head's.
        let hash = head.wrapping_mul(2_654_435_769) >> self.shift;
        let word = usize::try_from(hash >> 6).ok()?;
        Some((word, 1 << (hash & 63)))
    }
}

/// Whether no word goes on over this place. Scripts that do not part their words have a border everywhere.
fn is_border(text: &str, at: usize) -> bool {
    let (Some(before), Some(after)) = (text.get(..at), text.get(at..)) else { return false };
    let goes_on = |sign: char| sign.is_alphanumeric() && !is_dense(sign);
    !(before.chars().next_back().is_some_and(goes_on) && after.chars().next().is_some_and(goes_on))
}

#[cfg(test)]
mod tests;
