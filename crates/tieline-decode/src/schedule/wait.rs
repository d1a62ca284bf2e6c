//! How long a request will wait: the slots played forward at the learned pace.

use super::{Job, Pace, Reading, Running, Scheduler, Waiting, as_f64};

/// The slots, played forward. Prompts are read one after the other and hold up all answers; answers run
/// side by side.
struct Forecast<'p> {
    /// Seconds until those at work end.
    ends: Vec<f64>,
    /// Nobody else starts before.
    now: f64,
    slots: usize,
    /// Where it is known what a prompt's token and a step of answers take.
    pace: Option<&'p Pace>,
    /// Seconds of a step that decodes.
    step: f64,
}

impl Forecast<'_> {
    /// Seconds until the next request, this one, starts; `None` where the pace is not known.
    fn start(&mut self, job: &Job) -> Option<f64> {
        let room = if job.alone { 0 } else { self.slots - 1 };
        while self.ends.len() > room {
            self.pace?;
            let first =
                (0..self.ends.len()).min_by(|a, b| self.ends[*a].total_cmp(&self.ends[*b]))?;
            self.now = self.now.max(self.ends.swap_remove(first));
        }
        Some(self.now)
    }

    /// The request is at work from now on.
    fn run(&mut self, job: &Job, answer: f64) {
        let prompt = Reading::of(job.prompt, 0);
        let reading = self.pace.and_then(|pace| pace.seconds(0, prompt)).unwrap_or_default();
        self.ends.iter_mut().for_each(|end| *end += reading);
        let end = self.now + reading + answer * self.step;
        if job.alone {
            self.now = end;
        } else {
            self.ends.push(end);
        }
    }
}

impl Scheduler {
    /// Seconds until the request at `position` in the order of admission is let in, as far as known.
    pub(super) fn expected_wait(&self, position: usize) -> Option<f64> {
        self.wait_in(&self.order(), position)
    }

    /// The same, of a queue in the order of admission.
    pub(super) fn wait_in(&self, order: &[&Waiting], position: usize) -> Option<f64> {
        let mut forecast = self.forecast();
        if self.running.iter().any(|r| r.job.alone) {
            forecast.pace?;
            forecast.now = forecast.ends.drain(..).fold(0.0, f64::max);
        }
        for waiting in order.iter().take(position) {
            forecast.start(&waiting.job)?;
            if waiting.job.alone {
                forecast.pace?;
            }
            forecast.run(&waiting.job, self.expected_answer(waiting.job.answer, 0));
        }
        forecast.start(&order.get(position)?.job)
    }

    fn forecast(&self) -> Forecast<'_> {
        let together = self.limits.slots.min(self.running.len() + self.waiting.len());
        let token = self.pace.token_seconds(0.0);
        let known = token.and(self.pace.decode_seconds(together));
        let (pace, step) = (known.map(|_| &self.pace), known.unwrap_or_default());
        let reads = |r: &Running| pace?.seconds(0, r.reading(r.remaining));
        let reading: f64 = self.running.iter().filter_map(reads).sum();
        let left = self.running.iter().map(|r| self.expected_answer(r.job.answer, r.answered));
        let ends = left.map(|left| reading + left * step).collect();
        Forecast { ends, now: 0.0, slots: self.limits.slots, pace, step }
    }

    /// Tokens that are likely left of an answer: as long as others were, for few use all they may.
    fn expected_answer(&self, most: usize, answered: usize) -> f64 {
        let most = as_f64(most);
        let likely = self.answer.map_or(most, |average| average.min(most));
        // One that is longer than others is likely to go on for a while.
        let longer = (most - as_f64(answered)).clamp(0.0, likely / 4.0);
        (likely - as_f64(answered)).max(longer)
    }
}
