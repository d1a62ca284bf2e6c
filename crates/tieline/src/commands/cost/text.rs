//! The sums, for people.

use comfy_table::CellAlignment;
use tieline_types::MicroUsd;

use super::super::list::{table, trimmed};
use super::super::prices::signer;
use super::here::{Energy, Local};
use super::{Account, AllCloud, Edition, Group, Report, Sums};
use crate::failure::Failure;
use crate::output::Output;

/// How wide the widest bar is, in characters.
const WIDTH: u64 = 24;

pub(super) fn show(output: &Output, report: &Report) -> Result<(), Failure> {
    if report.total.attempts == 0 {
        output.talk(&format!(
            "no requests are on record since {}; `tieline serve` records them",
            report.since.get(..10).unwrap_or(&report.since)
        ));
        return Ok(());
    }
    let by = report.by.to_uppercase();
    let mut table = table(&[&by, "COST", "", "ATTEMPTS", "READ", "WRITTEN"]);
    for (group, bar) in report.groups.iter().zip(bars(&report.groups)) {
        let Group { name, sums } = group;
        table.add_row([
            named(name, report.by),
            money(sums),
            bar,
            sums.attempts.to_string(),
            sums.prompt_tokens.to_string(),
            sums.completion_tokens.to_string(),
        ]);
    }
    for column in [1, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    output.line(&trimmed(&table))?;
    for line in below(report) {
        output.line(&line)?;
    }
    if report.prices.stale_days.is_some() && report.total.cost_micro_usd.0 > 0 {
        output.talk(&stale(report));
    }
    Ok(())
}

fn named(name: &str, by: &str) -> String {
    match (name, by) {
        ("", "key") => "this machine's user".to_owned(),
        ("", "backend") => "this machine".to_owned(),
        ("", _) => "none".to_owned(),
        _ => name.to_owned(),
    }
}

fn money(sums: &Sums) -> String {
    let cost = sums.cost_micro_usd;
    match sums {
        // Not even a part of it.
        Sums { at_least: true, .. } if cost.0 == 0 => "unknown".to_owned(),
        Sums { at_least: true, .. } => format!("at least {cost}"),
        Sums { attempts_estimated: 1.., .. } => format!("about {cost}"),
        _ => cost.to_string(),
    }
}

fn below(report: &Report) -> Vec<String> {
    let total = &report.total;
    let sources = &total.attempts_by_source;
    let mut lines = vec![
        String::new(),
        format!("total: {} for {} attempts", money(total), total.attempts),
        format!(
            "tokens: measured in {} attempts, reported by a vendor in {}, estimated in {}, unknown in {}",
            sources.measured, sources.reported, sources.estimated, sources.unknown
        ),
    ];
    if total.attempts_unknown > 0 {
        lines.push(format!(
            "the cost of {} attempts is unknown and not in the sum",
            total.attempts_unknown
        ));
    }
    if total.recorded_micro_usd != total.cost_micro_usd {
        lines.push(format!("by the prices of their time: {}", total.recorded_micro_usd));
    }
    let here = &report.baselines.all_local.here;
    lines.extend(unbilled(here));
    lines.push(match &report.baselines.all_cloud {
        Some(AllCloud { vendor, model, cost_micro_usd, at_least, .. }) => format!(
            "all in the cloud: {} {cost_micro_usd} with {vendor}/{model} for what ran here (estimated)",
            if *at_least { "at least" } else { "about" }
        ),
        None => "all in the cloud: unknown; --compare VENDOR/MODEL reckons it".to_owned(),
    });
    lines.push(all_here(here));
    lines.extend(
        report.budgets.iter().filter(|account| account.uncertain_micro_usd.0 > 0).map(uncertain),
    );
    let Edition { as_of, digest, oldest_used, key, by_program, attempts_by_policy, .. } =
        &report.prices;
    let oldest = oldest_used.as_ref().filter(|oldest| *oldest != as_of);
    let oldest = oldest.map_or(String::new(), |oldest| format!(" (the oldest used: {oldest})"));
    let digest = short(digest);
    let signer = signer(key.as_deref(), *by_program);
    lines.push(format!(
        "prices as of {as_of}{oldest}, digest {digest}, {signer}, in US dollars; days are those of UTC"
    ));
    if *attempts_by_policy > 0 {
        lines.push(format!("your policy's own prices count for {attempts_by_policy} attempts"));
    }
    lines
}

/// That what ran here is not free, whatever stands above.
fn unbilled(Local { attempts_here, energy, .. }: &Local) -> Option<String> {
    let known = match energy {
        Some(energy) if energy.attempts_unknown == 0 => "below",
        Some(Energy { cost_micro_usd: MicroUsd(1..), .. }) => "known in part, below",
        Some(_) | None => "unknown",
    };
    let own = format!(
        "the sums are of vendors' prices: the energy of {attempts_here} attempts here is {known}"
    );
    (*attempts_here > 0).then_some(own)
}

fn all_here(Local { energy, hardware, .. }: &Local) -> String {
    let energy = match energy {
        None => "electricity unknown without --tariff".to_owned(),
        Some(Energy { attempts_unknown: unknown @ 1.., cost_micro_usd: MicroUsd(0), .. }) => {
            format!(
                "electricity of {unknown} attempts unknown: `tieline bench` measures it where the processor counts it, or give --watts"
            )
        }
        Some(Energy { cost_micro_usd, attempts_unknown, source, .. }) => {
            let about = if *attempts_unknown > 0 { "at least" } else { "about" };
            format!("electricity of what ran here: {about} {cost_micro_usd} ({source})")
        }
    };
    let wear = hardware.as_ref().map_or_else(String::new, |hardware| {
        format!("; the machine's own price: about {} (estimated)", hardware.cost_micro_usd)
    });
    format!("all here: $0.00 to vendors; {energy}{wear}")
}

fn uncertain(account: &Account) -> String {
    let Account { kind, id, period, settled_micro_usd, uncertain_micro_usd, .. } = account;
    let name = if id.is_empty() { kind.clone() } else { format!("{kind} {id}") };
    format!(
        "budget of {name}, {period}: {uncertain_micro_usd} of the {settled_micro_usd} spent is of requests whose end nobody saw, at their most"
    )
}

fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

fn stale(report: &Report) -> String {
    let days = report.prices.stale_days.unwrap_or_default();
    format!("the newest price of the table is {days} days old: vendors may ask something else now")
}

/// A bar for each group: of its cost, or of its tokens where nothing cost anything.
fn bars(groups: &[Group]) -> Vec<String> {
    let cost = |group: &Group| u64::try_from(group.sums.cost_micro_usd.0).unwrap_or_default();
    let tokens = |group: &Group| group.sums.prompt_tokens + group.sums.completion_tokens;
    let costs: Vec<u64> = groups.iter().map(cost).collect();
    let lengths = if costs.iter().any(|&cost| cost > 0) {
        costs
    } else {
        groups.iter().map(tokens).collect()
    };
    let most = lengths.iter().copied().max().unwrap_or_default().max(1);
    lengths.iter().map(|&length| bar(length, most)).collect()
}

/// Drawn in eighths of a character; whatever is more than nothing is seen.
fn bar(length: u64, most: u64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(length) * u128::from(WIDTH * 8) / u128::from(most);
    let eighths = if length > 0 { eighths.max(1) } else { 0 };
    let whole = usize::try_from(eighths / 8).unwrap_or_default();
    let rest = usize::try_from(eighths % 8).unwrap_or_default();
    format!("{}{}", "█".repeat(whole), EIGHTHS.get(rest).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_share_and_never_nothing_for_something() {
        let check = |length, most, want: &str| assert_eq!(bar(length, most), want);
        check(0, 10, "");
        check(1, 1_000_000, "▏");
        check(10, 10, &"█".repeat(24));
        check(5, 10, &"█".repeat(12));
        check(1, 3, &"█".repeat(8));
        check(1, 64, "▍");
        check(u64::MAX, u64::MAX, &"█".repeat(24));
    }
}
