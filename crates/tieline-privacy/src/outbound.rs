//! What leaves, and by which rule.

use std::collections::BTreeMap;

use serde::Serialize;
use tieline_types::Request;

use crate::detect::Entity;
use crate::pseudonym::Kind;
use crate::redact::Placed;
use crate::surfaces::Surface;

/// A request that may leave. Made by this crate alone.
#[derive(Debug)]
pub struct Outbound {
    request: Request,
}

impl Outbound {
    pub(crate) fn new(request: Request) -> Self {
        Self { request }
    }

    /// What may be read and sent.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What may be read and sent, given away.
    pub fn into_request(self) -> Request {
        self.request
    }
}

/// The account of a request that left. Holds no text of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Egress {
    /// The policy's rule that let it leave.
    pub rule: String,
    /// Bytes of text that left, on all surfaces.
    pub bytes: u64,
    /// Tokens that left as they are, as a prompt or part of one.
    pub tokens: u64,
    /// Where text left, in the request's order.
    pub surfaces: Vec<SurfaceEgress>,
    /// Parts that are left out of `surfaces`, since there are so many.
    pub unlisted: u64,
    /// How many values of each kind were replaced.
    pub replaced: BTreeMap<Entity, u64>,
    /// How many texts were replaced since they look like pseudonyms.
    pub lookalikes: u64,
    /// How many pseudonyms of the answer were put back, so far.
    pub restored: u64,
    /// How many that look like pseudonyms could not be, so far.
    pub unrestored: u64,
    /// How many tool calls were held back for that, so far.
    pub withheld_calls: u64,
}

/// What left at one place of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SurfaceEgress {
    /// The place.
    pub surface: Surface,
    /// Its bytes, each in exactly one part.
    pub parts: Vec<Part>,
}

/// Bytes that follow each other and left for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The first byte, from 0, in the text that left.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
    /// Why it may leave.
    pub why: Why,
}

/// Why bytes may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The rule of the account lets them.
    Rule,
    /// They are a pseudonym of such a value.
    Pseudonym(Entity),
    /// They are a pseudonym of a text that looked like one.
    Lookalike,
}

impl Egress {
    pub(crate) fn new(rule: &str) -> Self {
        Self { rule: rule.to_owned(), ..Self::default() }
    }

    /// Whether a pseudonym is in it.
    pub(crate) fn has_pseudonyms(&self) -> bool {
        !self.replaced.is_empty() || self.lookalikes > 0
    }

    /// The same with at most so many parts listed. What is counted stays as it is.
    #[must_use]
    pub fn shortened(mut self, most: usize) -> Self {
        let mut left = most;
        for surface in &mut self.surfaces {
            let listed = surface.parts.len().min(left);
            left -= listed;
            let unlisted = surface.parts.len() - listed;
            surface.parts.truncate(listed);
            self.unlisted = self.unlisted.saturating_add(u64::try_from(unlisted).unwrap_or(0));
        }
        self.surfaces.retain(|surface| !surface.parts.is_empty());
        self
    }

    pub(crate) fn add(&mut self, surface: Surface, bytes: usize, placed: &[Placed]) {
        if bytes == 0 {
            return;
        }
        let mut parts = Vec::with_capacity(2 * placed.len() + 1);
        let mut from = 0;
        for Placed { range, kind, .. } in placed {
            let why = match kind {
                Kind::Found(entity) => {
                    *self.replaced.entry(*entity).or_default() += 1;
                    Why::Pseudonym(*entity)
                }
                Kind::Lookalike => {
                    self.lookalikes += 1;
                    Why::Lookalike
                }
            };
            if from < range.start {
                parts.push(Part { start: from, end: range.start, why: Why::Rule });
            }
            parts.push(Part { start: range.start, end: range.end, why });
            from = range.end;
        }
        if from < bytes {
            parts.push(Part { start: from, end: bytes, why: Why::Rule });
        }
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.surfaces.push(SurfaceEgress { surface, parts });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_account_counts_what_it_does_not_list() {
        let part = |start| Part { start, end: start + 1, why: Why::Rule };
        let surface = |message| SurfaceEgress {
            surface: Surface::Content(message),
            parts: vec![part(0), part(1), part(2)],
        };
        let surfaces = vec![surface(0), surface(1), surface(2)];
        let all = Egress { surfaces, bytes: 9, ..Egress::default() };
        let short = all.clone().shortened(4);
        assert_eq!((short.unlisted, short.bytes, short.surfaces.len()), (5, 9, 2));
        assert_eq!(short.surfaces[1].parts, [part(0)]);
        assert_eq!(all.clone().shortened(9), all);
    }
}
