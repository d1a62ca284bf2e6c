//! Sums what requests cost, by the prices of today.
//!
//! Usage is what was measured; a cost is only a view of it. So a table that was wrong is put right for the past too, and
//! the cost that was recorded stays beside it. What is not known is counted, never taken for nothing: a sum that lacks
//! something says that it is at least so much.

use std::collections::BTreeMap;

use tieline_types::{MicroUsd, Source, Tokens, Usage, Zone};

use crate::budget::Period;
use crate::requests::RequestRow;

/// How sure a cost is, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Certainty {
    /// Of numbers that were measured or reported.
    Exact,
    /// A number in it was estimated.
    Estimated,
    /// It covers only what was seen.
    AtLeast,
    /// Nothing is known.
    Unknown,
}

/// What a request cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// How much, as far as is known.
    pub amount: MicroUsd,
    /// How sure that is.
    pub certainty: Certainty,
}

/// What this usage of this row's model costs by the prices of today; `None`: nobody knows.
pub type PriceOf<'a> = &'a dyn Fn(&RequestRow, &Usage) -> Option<MicroUsd>;

/// What a row's usage costs by the prices of today, or what it is recorded to have cost where no price is known now.
/// What was computed on this machine costs nothing; on the local network it costs what the policy says.
pub fn reprice(row: &RequestRow, price_of: PriceOf<'_>) -> Cost {
    let free = Cost { amount: MicroUsd::ZERO, certainty: Certainty::Exact };
    match row.zone {
        Zone::Host => free,
        Zone::Lan => match elsewhere(row, price_of) {
            Cost { certainty: Certainty::Unknown, .. } => free,
            cost => cost,
        },
        Zone::CloudZeroRetention | Zone::Cloud => elsewhere(row, price_of),
    }
}

/// The same as if a vendor had answered, wherever it was computed.
pub fn elsewhere(row: &RequestRow, price_of: PriceOf<'_>) -> Cost {
    let usage = usage(row);
    let priced = usage.and_then(|usage| price_of(row, &usage));
    match priced.or(row.cost) {
        Some(amount) => Cost { amount, certainty: certainty(row, usage.is_some()) },
        None => Cost { amount: MicroUsd::ZERO, certainty: Certainty::Unknown },
    }
}

fn certainty(row: &RequestRow, has_usage: bool) -> Certainty {
    if row.cost_at_least {
        return Certainty::AtLeast;
    }
    if !has_usage {
        // Nothing to reckon with: the recorded cost stands, such as nothing for what was refused at once.
        return Certainty::Exact;
    }
    let lacks = |tokens: Option<u32>, source| tokens.is_none() || source == Source::Unknown;
    let sources = row.sources;
    if lacks(row.prompt_tokens, sources.prompt) || lacks(row.completion_tokens, sources.completion)
    {
        return Certainty::AtLeast;
    }
    let guessed = [sources.prompt, sources.completion].contains(&Source::Estimated);
    // Cached tokens that nobody told of are reckoned as fresh ones: the dearer way.
    let cached = matches!(sources.cached, Source::Estimated | Source::Unknown);
    if guessed || cached { Certainty::Estimated } else { Certainty::Exact }
}

/// What a row used, where anything is known of it; what is not known counts as none.
pub fn usage(row: &RequestRow) -> Option<Usage> {
    if row.prompt_tokens.is_none() && row.completion_tokens.is_none() {
        return None;
    }
    let tokens = |tokens: Option<u32>| Tokens(tokens.unwrap_or_default());
    Some(Usage {
        prompt_tokens: tokens(row.prompt_tokens),
        cached_tokens: tokens(row.cached_tokens),
        cache_write_tokens: tokens(row.cache_write_tokens),
        completion_tokens: tokens(row.completion_tokens),
        reasoning_tokens: tokens(row.reasoning_tokens),
        ..Usage::default()
    })
}

/// What is summed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Days of UTC.
    Day,
    /// Models.
    Model,
    /// Keys.
    Key,
    /// Projects.
    Project,
    /// Zones.
    Zone,
    /// Backends.
    Backend,
}

impl By {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Key => "key",
            Self::Project => "project",
            Self::Zone => "zone",
            Self::Backend => "backend",
        }
    }

    fn name(self, row: &RequestRow) -> String {
        match self {
            Self::Day => Period::Day.name(row.at_unix_ms.div_euclid(1000)),
            Self::Model => row.model.clone(),
            Self::Key => row.key.clone(),
            Self::Project => row.project.clone(),
            Self::Zone => row.zone.as_str().to_owned(),
            Self::Backend => row.backend.clone(),
        }
    }
}

/// Sums of some rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Attempts.
    pub rows: u64,
    /// What they cost by the prices of today, as far as is known.
    pub cost: MicroUsd,
    /// What they were recorded to cost, by the prices of their time.
    pub recorded: MicroUsd,
    /// Attempts whose cost is estimated.
    pub estimated: u64,
    /// Attempts that cost at least what is summed.
    pub at_least: u64,
    /// Attempts of whose cost nothing is known.
    pub unknown: u64,
    /// Attempts by the weakest source of their tokens, as [`Source::ALL`] has them.
    pub sources: [u64; 4],
    /// Tokens read.
    pub prompt_tokens: u64,
    /// Those of them that were cached.
    pub cached_tokens: u64,
    /// Tokens written.
    pub completion_tokens: u64,
    /// Those of them that were thought.
    pub reasoning_tokens: u64,
    /// Time that this machine's models took, in microseconds; requests at once count each.
    pub local_us: u64,
    /// Bytes that left this machine.
    pub sent_bytes: u64,
    /// Texts that were replaced before they left.
    pub redacted: u64,
}

impl Totals {
    /// Whether the true cost may be higher.
    pub fn is_at_least(&self) -> bool {
        self.at_least + self.unknown > 0
    }

    fn add(&mut self, row: &RequestRow, cost: Cost) {
        let many = |tokens: Option<u32>| u64::from(tokens.unwrap_or_default());
        self.rows += 1;
        self.cost += cost.amount;
        self.recorded += row.cost.unwrap_or_default();
        match cost.certainty {
            Certainty::Exact => {}
            Certainty::Estimated => self.estimated += 1,
            Certainty::AtLeast => self.at_least += 1,
            Certainty::Unknown => self.unknown += 1,
        }
        let weakest = weakest(row);
        for (count, source) in self.sources.iter_mut().zip(Source::ALL) {
            *count += u64::from(source == weakest);
        }
        self.prompt_tokens += many(row.prompt_tokens);
        self.cached_tokens += many(row.cached_tokens);
        self.completion_tokens += many(row.completion_tokens);
        self.reasoning_tokens += many(row.reasoning_tokens);
        self.redacted += many(row.redacted);
        self.sent_bytes += u64::try_from(row.sent_bytes.unwrap_or_default()).unwrap_or_default();
        if row.zone == Zone::Host {
            self.local_us += u64::try_from(row.total_us).unwrap_or_default();
        }
    }
}

/// Of the tokens read and written: what the sum of them is worth.
fn weakest(row: &RequestRow) -> Source {
    let source = |tokens: Option<u32>, source| tokens.map_or(Source::Unknown, |_| source);
    let prompt = source(row.prompt_tokens, row.sources.prompt);
    prompt.max(source(row.completion_tokens, row.sources.completion))
}

/// What was spent, by something.
#[derive(Clone, Debug)]
pub struct Spend {
    by: By,
    /// The sums, by name.
    pub groups: BTreeMap<String, Totals>,
    /// All together.
    pub total: Totals,
}

impl Spend {
    /// Nothing so far.
    pub fn new(by: By) -> Self {
        Self { by, groups: BTreeMap::new(), total: Totals::default() }
    }

    /// Adds a row at what it costs.
    pub fn add(&mut self, row: &RequestRow, cost: Cost) {
        self.groups.entry(self.by.name(row)).or_default().add(row, cost);
        self.total.add(row, cost);
    }
}

/// What electricity costs for so long at so much: `time · power · tariff`, rounded down. An estimate: it takes the
/// power as constant, and requests at once count their time each.
pub fn energy_cost(time_us: u64, milliwatts: u32, tariff_per_kwh: MicroUsd) -> MicroUsd {
    // Microseconds by milliwatts are 10⁻⁹ J, and a kWh is 3.6·10⁶ J.
    let energy = i128::from(time_us) * i128::from(milliwatts);
    let cost = energy.saturating_mul(i128::from(tariff_per_kwh.0)) / 3_600_000_000_000_000;
    MicroUsd(i64::try_from(cost).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::UsageSources;

    fn remote(prompt: Option<u32>, completion: Option<u32>) -> RequestRow {
        RequestRow {
            zone: Zone::Cloud,
            prompt_tokens: prompt,
            cached_tokens: Some(0),
            completion_tokens: completion,
            sources: UsageSources::all(Source::Reported),
            ..RequestRow::default()
        }
    }

    /// A micro-dollar for a token read, two for one written.
    fn price(row: &RequestRow, usage: &Usage) -> Option<MicroUsd> {
        let tokens = i64::from(usage.prompt_tokens.0) + 2 * i64::from(usage.completion_tokens.0);
        (row.model != "new").then_some(MicroUsd(tokens))
    }

    #[track_caller]
    fn check(row: &RequestRow, amount: i64, certainty: Certainty) {
        assert_eq!(reprice(row, &price), Cost { amount: MicroUsd(amount), certainty });
    }

    #[test]
    fn a_cost_says_how_sure_it_is() {
        let known = remote(Some(10), Some(5));
        check(&known, 20, Certainty::Exact);
        check(&RequestRow { zone: Zone::Host, ..known.clone() }, 0, Certainty::Exact);
        check(&RequestRow { cost_at_least: true, ..known.clone() }, 20, Certainty::AtLeast);
        check(&remote(Some(10), None), 10, Certainty::AtLeast);
        check(&remote(None, None), 0, Certainty::Unknown);
        let sources = UsageSources { completion: Source::Estimated, ..known.sources };
        check(&RequestRow { sources, ..known.clone() }, 20, Certainty::Estimated);
        let sources = UsageSources { cached: Source::Unknown, ..known.sources };
        check(&RequestRow { sources, ..known.clone() }, 20, Certainty::Estimated);
        let sources = UsageSources { prompt: Source::Unknown, ..known.sources };
        check(&RequestRow { sources, ..known }, 20, Certainty::AtLeast);
    }

    #[test]
    fn what_has_no_price_today_costs_what_it_was_recorded_at() {
        let row = RequestRow { model: "new".to_owned(), ..remote(Some(1), Some(1)) };
        check(&row, 0, Certainty::Unknown);
        check(&RequestRow { cost: Some(MicroUsd(7)), ..row.clone() }, 7, Certainty::Exact);
        check(&RequestRow { zone: Zone::Lan, ..row }, 0, Certainty::Exact);
        // Refused before anything was read.
        let refused = RequestRow { cost: Some(MicroUsd::ZERO), ..remote(None, None) };
        check(&refused, 0, Certainty::Exact);
        // A price that changed: today's counts.
        let cheaper = RequestRow { cost: Some(MicroUsd(900)), ..remote(Some(10), Some(0)) };
        check(&cheaper, 10, Certainty::Exact);
    }

    #[test]
    fn sums_count_what_they_lack() {
        let mut spend = Spend::new(By::Zone);
        let local = RequestRow {
            prompt_tokens: Some(100),
            completion_tokens: Some(50),
            total_us: 7,
            sources: UsageSources::all(Source::Measured),
            ..RequestRow::default()
        };
        for row in [&local, &remote(Some(10), Some(5)), &remote(None, None), &remote(Some(1), None)]
        {
            spend.add(row, reprice(row, &price));
        }
        assert_eq!(spend.groups.keys().collect::<Vec<_>>(), ["cloud", "host"]);
        let Totals { rows, cost, unknown, at_least, sources, prompt_tokens, local_us, .. } =
            spend.total;
        assert_eq!((rows, cost, unknown, at_least), (4, MicroUsd(21), 1, 1));
        assert_eq!((sources, prompt_tokens, local_us), ([1, 1, 0, 2], 111, 7));
        assert!(spend.groups["cloud"].is_at_least() && !spend.groups["host"].is_at_least());
    }

    #[test]
    fn a_kilowatt_hour_costs_the_tariff() {
        let hour = 3_600_000_000;
        assert_eq!(energy_cost(hour, 1_000_000, MicroUsd(300_000)), MicroUsd(300_000));
        assert_eq!(energy_cost(hour / 2, 65_000, MicroUsd(300_000)), MicroUsd(9_750));
        assert_eq!(energy_cost(0, 65_000, MicroUsd(300_000)), MicroUsd::ZERO);
        assert_eq!(energy_cost(u64::MAX, u32::MAX, MicroUsd(i64::MAX)), MicroUsd(i64::MAX));
    }
}
