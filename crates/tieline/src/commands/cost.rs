//! `tieline cost`

mod here;
mod text;

use std::cell::Cell;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use tieline_router::policy::{MachinePolicy, Policy};
use tieline_router::prices::{PriceSource, Priced, Prices, Target};
use tieline_store::RequestRow;
use tieline_store::budget;
use tieline_store::spend::{self, By, Spend, Totals};
use tieline_types::{MicroUsd, Source, Usage, Zone};

use self::here::{Here, Local};
use crate::app::App;
use crate::args::{self, Cost, Since, VendorModel};
use crate::failure::Failure;
use crate::switching::Place;

/// What the arguments mean.
struct Settings {
    by: By,
    since: Timestamp,
    compare: Option<VendorModel>,
    machine: MachinePolicy,
}

/// The whole answer.
#[derive(Serialize)]
struct Report {
    by: &'static str,
    /// In UTC.
    since: String,
    prices: Edition,
    groups: Vec<Group>,
    total: Sums,
    baselines: Baselines,
    budgets: Vec<Account>,
}

/// What a budget's period holds: all of them, whatever --since says.
#[derive(Serialize)]
struct Account {
    kind: String,
    id: String,
    period: String,
    settled_micro_usd: MicroUsd,
    /// The part of it that is of requests whose end nobody saw, at what they may have cost at most.
    uncertain_micro_usd: MicroUsd,
    open_micro_usd: MicroUsd,
}

#[derive(Serialize)]
struct Edition {
    as_of: String,
    digest: String,
    /// The public key that signed the table.
    key: Option<String>,
    /// Whether that is the program's own.
    by_program: bool,
    /// Attempts that the policy's own prices were reckoned for.
    attempts_by_policy: u64,
    /// How old the newest price is, where it is too old.
    stale_days: Option<i64>,
    /// The day of the oldest price that was reckoned with.
    oldest_used: Option<String>,
}

#[derive(Serialize)]
struct Group {
    name: String,
    #[serde(flatten)]
    sums: Sums,
}

#[derive(Clone, Serialize)]
struct Sums {
    attempts: u64,
    cost_micro_usd: MicroUsd,
    /// Whether the true cost may be higher.
    at_least: bool,
    recorded_micro_usd: MicroUsd,
    attempts_by_source: Sources,
    attempts_estimated: u64,
    attempts_at_least: u64,
    attempts_unknown: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    completion_tokens: u64,
    reasoning_tokens: u64,
    local_us: u64,
    sent_bytes: u64,
    redacted: u64,
}

/// Attempts by the weakest source of their tokens.
#[derive(Clone, Serialize)]
struct Sources {
    measured: u64,
    reported: u64,
    estimated: u64,
    unknown: u64,
}

#[derive(Serialize)]
struct Baselines {
    /// Everything asked of one vendor's model.
    all_cloud: Option<AllCloud>,
    /// Everything asked of this machine.
    all_local: AllLocal,
}

#[derive(Serialize)]
struct AllCloud {
    vendor: String,
    model: String,
    cost_micro_usd: MicroUsd,
    at_least: bool,
    source: &'static str,
}

#[derive(Serialize)]
struct AllLocal {
    cost_micro_usd: MicroUsd,
    /// What did run here cost so much; what the rest would have taken here is not known.
    #[serde(flatten)]
    here: Local,
}

pub(super) fn cost(app: &App, args: Cost) -> Result<(), Failure> {
    let now = Timestamp::now();
    // What was spent is said also where the policy has a fault.
    let policy = Place::of(app).policy().unwrap_or_else(|failure| {
        app.output.warn(&failure.message);
        Policy::default()
    });
    let settings = settings(args, policy.machine, now)?;
    let prices = super::prices::with_policy(&app.store, &policy)?;
    let report = report(app, &settings, &prices, now)?;
    if app.output.is_json() {
        return app.output.value(&report);
    }
    text::show(&app.output, &report)
}

/// `machine`: what the policy says of it, which the arguments may replace.
fn settings(args: Cost, machine: MachinePolicy, now: Timestamp) -> Result<Settings, Failure> {
    let since = point(args.since, now)?;
    let by = match args.by {
        args::CostBy::Day => By::Day,
        args::CostBy::Model => By::Model,
        args::CostBy::Key => By::Key,
        args::CostBy::Project => By::Project,
        args::CostBy::Zone => By::Zone,
        args::CostBy::Backend => By::Backend,
    };
    let machine = MachinePolicy {
        milliwatts: args.watts.or(machine.milliwatts),
        tariff_per_kwh: args.tariff.or(machine.tariff_per_kwh),
        hardware: args.hardware.zip(args.life).or(machine.hardware),
    };
    if args.watts.is_some() && machine.tariff_per_kwh.is_none() {
        return Err(Failure::user("--watts says nothing without what a kilowatt hour costs")
            .with_hint("give --tariff, or a tariff in the policy's table [machine]"));
    }
    Ok(Settings { by, since, compare: args.compare, machine })
}

/// The point in time that is meant.
pub(super) fn point(since: Since, now: Timestamp) -> Result<Timestamp, Failure> {
    let far = || Failure::user("cannot look so far back").with_hint("give a later --since");
    match since {
        Since::Ago(seconds) => {
            let ago = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
            now.checked_sub(ago).map_err(|_| far())
        }
        Since::Day(day) => Ok(day.to_zoned(TimeZone::UTC).map_err(|_| far())?.timestamp()),
    }
}

fn report(
    app: &App,
    settings: &Settings,
    prices: &Prices,
    now: Timestamp,
) -> Result<Report, Failure> {
    let since = settings.since.as_millisecond();
    let oldest: Cell<Option<Date>> = Cell::new(None);
    let price_of = |row: &RequestRow, usage: &Usage| {
        let priced = today(prices, row)?;
        let dates = [oldest.get(), priced.source.date()];
        oldest.set(dates.into_iter().flatten().min());
        Some(priced.cost(usage))
    };
    let mut spend = Spend::new(settings.by);
    let (mut first, mut attempts_by_policy) = (None, 0);
    let mut here = Here::new(settings.machine, &app.store.benches()?, &app.store.list()?);
    app.store.requests_since(since, |row| {
        here.add(row);
        attempts_by_policy += u64::from(is_by_policy(prices, row));
        spend.add(row, spend::reprice(row, &price_of));
        if first.is_none() {
            first = priced_in_the_cloud(prices, row);
        }
    })?;
    let compared = settings.compare.clone().map(|model| named(prices, model)).transpose()?;
    let all_cloud = match compared.or(first) {
        Some(model) => Some(all_cloud(app, prices, model, since)?),
        None => None,
    };
    Ok(Report {
        by: settings.by.as_str(),
        since: settings.since.strftime("%FT%TZ").to_string(),
        prices: Edition {
            as_of: prices.as_of().to_string(),
            digest: prices.digest().to_string(),
            key: prices.key().map(str::to_owned),
            by_program: prices.is_by_program(),
            attempts_by_policy,
            stale_days: prices.stale_days(now.as_second()),
            oldest_used: oldest.get().map(|date| date.to_string()),
        },
        groups: groups(spend.groups),
        total: sums(&spend.total),
        baselines: Baselines {
            all_cloud,
            all_local: AllLocal { cost_micro_usd: MicroUsd::ZERO, here: here.bill() },
        },
        budgets: accounts(app)?,
    })
}

fn accounts(app: &App) -> Result<Vec<Account>, Failure> {
    let account = |(account, balance): (budget::Account, budget::Balance)| Account {
        kind: account.kind,
        id: account.id,
        period: account.period,
        settled_micro_usd: balance.settled,
        uncertain_micro_usd: balance.uncertain,
        open_micro_usd: balance.open,
    };
    Ok(app.store.balances()?.into_iter().map(account).collect())
}

fn groups(groups: std::collections::BTreeMap<String, Totals>) -> Vec<Group> {
    groups.into_iter().map(|(name, totals)| Group { name, sums: sums(&totals) }).collect()
}

/// The price of today. A row that the policy priced keeps what it was recorded at: the table knows it less.
fn today<'a>(prices: &'a Prices, row: &RequestRow) -> Option<&'a Priced> {
    let target = Target { backend: &row.backend, vendor: &row.vendor, model: &row.model };
    let by_policy = row.price_source.as_deref() == Some("policy");
    prices.find(target).filter(|priced| match priced.source {
        PriceSource::Table { .. } => !by_policy,
        PriceSource::Policy { .. } => true,
    })
}

/// Whether it costs what the policy says, or said when it was recorded.
fn is_by_policy(prices: &Prices, row: &RequestRow) -> bool {
    let recorded = row.price_source.as_deref() == Some("policy");
    today(prices, row).map_or(recorded, |priced| priced.source.as_str() == "policy")
}

/// The vendor's model that an attempt was asked of, with its price of today.
fn priced_in_the_cloud(prices: &Prices, row: &RequestRow) -> Option<(VendorModel, Priced)> {
    let priced = match row.zone {
        Zone::CloudZeroRetention | Zone::Cloud => today(prices, row)?,
        // A server of one's own is not what vendors are compared by.
        Zone::Host | Zone::Lan => return None,
    };
    let (vendor, model) = (row.vendor.clone(), row.model.clone());
    Some((VendorModel { vendor, model }, priced.clone()))
}

/// The vendor's model that the user names, with its price.
fn named(prices: &Prices, model: VendorModel) -> Result<(VendorModel, Priced), Failure> {
    let VendorModel { vendor, model: name } = &model;
    let priced = prices.find(Target { backend: vendor, vendor, model: name }).ok_or_else(|| {
        Failure::user(format!("no price of {vendor}/{name} is known"))
            .with_hint("name it as its vendor does, such as openai/gpt-4o")
    })?;
    let priced = priced.clone();
    Ok((model, priced))
}

/// What all of it would have cost with one vendor's model: what was asked of vendors at what it cost, and the answers
/// that callers got from here at that model's price, none of it cached. Another model counts tokens otherwise, so it is
/// an estimate.
fn all_cloud(
    app: &App,
    prices: &Prices,
    (VendorModel { vendor, model }, priced): (VendorModel, Priced),
    since_unix_ms: i64,
) -> Result<AllCloud, Failure> {
    let here = |_: &RequestRow, usage: &Usage| Some(priced.cost(&fresh(usage)));
    let there = |row: &RequestRow, usage: &Usage| Some(today(prices, row)?.cost(usage));
    let mut sum = Spend::new(By::Zone);
    app.store.requests_since(since_unix_ms, |row| {
        if !counts_in_the_cloud(row) {
            return;
        }
        let cost = match row.zone {
            Zone::Host => spend::elsewhere(row, &here),
            Zone::Lan | Zone::CloudZeroRetention | Zone::Cloud => spend::reprice(row, &there),
        };
        sum.add(row, cost);
    })?;
    let source = Source::Estimated.as_str();
    let (cost, at_least) = (sum.total.cost, sum.total.is_at_least());
    Ok(AllCloud { vendor, model, cost_micro_usd: cost, at_least, source })
}

/// Whether an attempt would have been one too, had one vendor's model been asked for everything. An answer of this
/// machine's that its caller did not get was asked of somebody else as well, whose attempt counts; and where only one is
/// asked, nobody loses a hedge.
fn counts_in_the_cloud(row: &RequestRow) -> bool {
    match row.zone {
        Zone::Host => ["answered", "kept"].contains(&row.outcome.as_str()),
        Zone::Lan | Zone::CloudZeroRetention | Zone::Cloud => row.outcome != "hedge_lost",
    }
}

/// Without what this machine's cache knew: the vendor's would have known other things.
fn fresh(usage: &Usage) -> Usage {
    Usage {
        cached_tokens: tieline_types::Tokens(0),
        cache_write_tokens: tieline_types::Tokens(0),
        ..*usage
    }
}

fn sums(totals: &Totals) -> Sums {
    let [measured, reported, estimated, unknown] = totals.sources;
    Sums {
        attempts: totals.rows,
        cost_micro_usd: totals.cost,
        at_least: totals.is_at_least(),
        recorded_micro_usd: totals.recorded,
        attempts_by_source: Sources { measured, reported, estimated, unknown },
        attempts_estimated: totals.estimated,
        attempts_at_least: totals.at_least,
        attempts_unknown: totals.unknown,
        prompt_tokens: totals.prompt_tokens,
        cached_tokens: totals.cached_tokens,
        completion_tokens: totals.completion_tokens,
        reasoning_tokens: totals.reasoning_tokens,
        local_us: totals.local_us,
        sent_bytes: totals.sent_bytes,
        redacted: totals.redacted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(zone: Zone, outcome: &str, want: bool) {
        let row = RequestRow { zone, outcome: outcome.to_owned(), ..RequestRow::default() };
        assert_eq!(counts_in_the_cloud(&row), want, "{zone:?} {outcome}");
    }

    #[test]
    fn no_answer_counts_twice_in_the_cloud() {
        for outcome in ["answered", "kept"] {
            check(Zone::Host, outcome, true);
        }
        for outcome in ["escalated", "hedge_lost", "failed", "left", "skipped"] {
            check(Zone::Host, outcome, false);
        }
        // What a vendor billed for no answer is billed in the cloud too.
        for outcome in ["answered", "failed", "left", "unsettled"] {
            check(Zone::Cloud, outcome, true);
        }
        check(Zone::Cloud, "hedge_lost", false);
    }
}
