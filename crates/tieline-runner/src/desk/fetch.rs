//! Requests whose prompts' beginnings are being fetched from disk: they have a place and compute nothing, and the
//! others go on.

use std::time::{Duration, Instant};

use tieline_types::RequestId;
use tieline_types::wire::{FrameError, Reply};

use super::{Desk, Line};
use crate::fetcher::Fetch;
use crate::kv::{Brought, Caching, Start};

/// The part of a step that putting what came in its place may take between two steps, and one segment more.
const PART: u32 = 16;

/// One of them.
#[derive(Debug)]
pub(super) struct Fetching {
    pub(super) id: RequestId,
    start: Start,
    fetch: Fetch,
}

impl Desk<'_> {
    /// A request was let in and got a sequence: fetches what is known of its prompt, or begins it.
    pub(super) fn fetch_or_begin(
        &mut self,
        line: Line<'_>,
        id: RequestId,
        start: Start,
    ) -> Result<(), FrameError> {
        let Some(answer) = self.answers.get_mut(&id) else { return Ok(()) };
        let full = answer.caching() == Caching::Full;
        let fetch = full.then(|| self.kv.fetch(&answer.partition, &start, &answer.tokens));
        let Some(fetch) = fetch.flatten() else { return self.begin(line, id, &start) };
        answer.hold(&start);
        self.scheduler.fetch(id);
        self.fetching.push(Fetching { id, start, fetch });
        Ok(())
    }

    fn begin(&mut self, line: Line<'_>, id: RequestId, start: &Start) -> Result<(), FrameError> {
        let Some(answer) = self.answers.get_mut(&id) else { return Ok(()) };
        let stops = self.kv.stops(answer.tokens.len(), start.cached, &answer.marks);
        answer.stop_at(if answer.caching() == Caching::Off { Vec::new() } else { stops });
        match answer.begin(start) {
            Some(event) => line.writer.reply(id, Reply::Event(event)),
            None => Ok(()),
        }
    }

    /// Puts what came from disk in its place, for no longer than others may wait, and begins those of which all
    /// came. Waits `patience` for it where nothing came.
    pub(super) fn bring(
        &mut self,
        line: Line<'_>,
        mut patience: Duration,
    ) -> Result<(), FrameError> {
        let until = Instant::now() + patience.max(self.params.step / PART);
        let mut at = 0;
        while let Some(Fetching { id, start, fetch }) = self.fetching.get_mut(at) {
            let known = self.answers.get(id).map(|answer| answer.tokens.as_slice());
            match self.kv.bring(fetch, (start.seq, known.unwrap_or_default()), patience) {
                Brought::Some if Instant::now() < until => {}
                Brought::Some => return Ok(()),
                // The others come after it, or were read before.
                Brought::Nothing => (at, patience) = (at + 1, Duration::ZERO),
                Brought::All => {
                    let Fetching { id, mut start, .. } = self.fetching.remove(at);
                    start.holds(self.kv.length(start.seq));
                    let remaining = known.unwrap_or_default().len().saturating_sub(start.cached);
                    self.scheduler.fetched(id, remaining);
                    self.begin(line, id, &start)?;
                }
            }
        }
        Ok(())
    }
}
