//! What comes of deciding again, for people.

use comfy_table::{CellAlignment, Table};
use tieline_router::quality::confidence::Interval;
use tieline_router::replay::report::{Escalations, Ids, Pair, Report, Same, Sources};
use tieline_types::MicroUsd;

use crate::commands::list::{table, trimmed};

/// Ids that are shown; `--json` has more.
const SHOWN: usize = 8;
/// Moves that are shown.
const MOVES: usize = 20;

pub(super) fn text(report: &Report, days: &str, terms: bool) -> String {
    let mut lines = vec![format!(
        "{} requests of {days}, decided again by policy {}",
        report.requests,
        report.policy.short()
    )];
    lines.extend(left_out(report.by_name, report.unreadable, report.newer));
    lines.push(String::new());
    lines.extend(leave(report));
    lines.push(String::new());
    lines.push(format!("{} of {} decisions change", report.changed, report.requests));
    if !report.moves.is_empty() {
        lines.push(trimmed(&moves(&report.moves)));
    }
    let refused = report.refused;
    lines.push(format!("refused: {} as it was, {} now", refused.before, refused.after));
    for (what, pairs) in
        [("class", &report.classes), ("zone", &report.zones), ("treatment", &report.treatments)]
    {
        lines.extend(pairs.iter().map(|pair| {
            let Pair { from, to, count } = pair;
            format!("{what}: {from} becomes {to} {count} times")
        }));
    }
    lines.push(String::new());
    lines.push(trimmed(&strategies(report)));
    lines.push(String::new());
    lines.extend(remarks(report, terms));
    lines.join("\n")
}

fn left_out(by_name: u64, unreadable: u64, newer: u64) -> impl Iterator<Item = String> {
    let all = [
        (by_name, "were asked for by the name of a model of this machine: no policy decides them"),
        (unreadable, "are on record and cannot be read"),
        (newer, "were written down by a later version of this program, and cannot be read"),
    ];
    let some = all.into_iter().filter(|(count, _)| *count > 0);
    some.map(|(count, what)| format!("not among them: {count} {what}"))
}

/// What would leave now, before all else.
fn leave(report: &Report) -> Vec<String> {
    let mut lines = match &report.leave {
        Ids { count: 0, .. } => {
            vec!["no request would leave this machine that did not before".to_owned()]
        }
        leave => {
            let count = leave.count;
            vec![
                format!("{count} REQUESTS WOULD LEAVE THIS MACHINE THAT DID NOT BEFORE"),
                format!("  {}", shown(leave)),
            ]
        }
    };
    for (ids, text) in [
        (&report.might_leave, "more might, where whoever is asked first does not answer"),
        (&report.farther, "that could leave before could go farther"),
        (&report.bare, "that could leave redacted could go as they are where they could not"),
    ] {
        if ids.count > 0 {
            lines.push(format!("{} {text}: {}", ids.count, shown(ids)));
        }
    }
    if report.stay.count > 0 {
        lines.push(format!("{} that left would stay, whoever is asked", report.stay.count));
    }
    lines
}

fn shown(ids: &Ids) -> String {
    let mut shown: Vec<&str> = ids.ids.iter().take(SHOWN).map(String::as_str).collect();
    if ids.count > SHOWN as u64 {
        shown.push("… (--json has more)");
    }
    shown.join(" ")
}

fn moves(all: &[Pair]) -> Table {
    let mut table = table(&["FROM", "TO", "REQUESTS"]);
    for Pair { from, to, count } in all.iter().take(MOVES) {
        table.add_row([from.clone(), to.clone(), count.to_string()]);
    }
    let others: u64 = all.iter().skip(MOVES).map(|pair| pair.count).sum();
    if others > 0 {
        table.add_row(["others", "", &others.to_string()]);
    }
    right(&mut table, 2..3);
    table
}

fn strategies(report: &Report) -> Table {
    let header = ["STRATEGY", "FIGURES", "ANSWERED", "COST", "FIRST TOKEN", "TOTAL", "QUALITY"];
    let mut table = table(&header);
    for one in &report.strategies {
        let name = match &one.who {
            Some(who) => format!("{}: {who}", one.strategy),
            None => one.strategy.to_owned(),
        };
        table.add_row([
            name,
            if one.measured { "measured" } else { "forecast" }.to_owned(),
            one.answered.to_string(),
            one.cost_usd.map_or_else(|| "-".to_owned(), money) + &unknown(one.unpriced),
            told(one.first_token_s, " s"),
            told(one.total_s, " s"),
            told(one.quality, ""),
        ]);
    }
    table.add_row(difference(report));
    right(&mut table, 2..header.len());
    table
}

fn right(table: &mut Table, columns: std::ops::Range<usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn told(interval: Option<Interval>, unit: &str) -> String {
    let Some(Interval { value, low, high }) = interval else { return "-".to_owned() };
    format!("{value:.2}{unit} [{low:.2}, {high:.2}]")
}

fn money(cost: Interval) -> String {
    let Interval { value, low, high } = cost;
    format!("{} [{}, {}]", dollars(value), dollars(low), dollars(high))
}

/// Requests that are not in a sum, behind it.
fn unknown(unpriced: u64) -> String {
    match unpriced {
        0 => String::new(),
        count => format!(" + {count} unknown"),
    }
}

fn dollars(value: f64) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "money far below 2^63 micro-dollars")]
    let micros = (value * 1e6).round() as i64;
    MicroUsd(micros).to_string()
}

/// The new policy's forecast less that of what was decided, as a line of the table.
fn difference(report: &Report) -> [String; 7] {
    let signed = |interval: Option<Interval>, unit: &str| {
        let Some(Interval { value, low, high }) = interval else { return "-".to_owned() };
        format!("{value:+.2}{unit} [{low:+.2}, {high:+.2}]")
    };
    let difference = &report.difference;
    let unpriced = unknown(difference.unpriced);
    [
        "this policy less as it was".to_owned(),
        "forecast".to_owned(),
        String::new(),
        difference.cost_usd.map_or_else(|| "-".to_owned(), money) + &unpriced,
        signed(difference.first_token_s, " s"),
        signed(difference.total_s, " s"),
        signed(difference.quality, ""),
    ]
}

fn remarks(report: &Report, terms: bool) -> Vec<String> {
    let mut lines = vec![
        "In brackets: 95 % intervals, by bootstrap over requests. Costs are sums over what is answered, times and \
         qualities are means; the last line is of what both answer, its cost of what costs are known of both times.".to_owned(),
        "Quality is the lower bound that the policy or measurements give; nobody graded these answers.".to_owned(),
        "All here, all away, one for all: whoever can answer, rules, budgets and aliases aside; the one for all is \
         the best in hindsight."
            .to_owned(),
    ];
    if let Some(measured) = report.strategies.iter().find(|one| one.measured) {
        lines.push(format!("Tokens that costs are of: {}.", sources(&measured.costs)));
    }
    for (at, what) in [(1, "what was decided"), (2, "this policy")] {
        if let Some(one) = report.strategies.get(at) {
            let (times, qualities) = (sources(&one.times), sources(&one.qualities));
            lines.push(format!("Forecasts for {what}: times {times}; qualities {qualities}."));
        }
    }
    if report.cascades.before + report.cascades.after > 0 {
        let (before, after) = (report.cascades.before, report.cascades.after);
        let Escalations { low, value, high, unknown } = report.escalations;
        lines.push(format!(
            "Cascades: {before} as it was, {after} now, of which {value:.1} [{low:.1}, {high:.1}] ask another one too, by \
             the answers that were judged in these days. Costs, times and qualities count both, and their brackets \
             hold this doubt too."
        ));
        if unknown > 0 {
            lines.push(format!(
                "Of {unknown} cascades no answer of the first model was judged: between none and all ask another one."
            ));
        }
    }
    if report.policies.keys().any(|policy| *policy != report.policy.to_string()) {
        lines.push(
            "Budgets are taken to be full at first. Conversations are taken to be where they were."
                .to_owned(),
        );
        lines.push(
            "Where outcomes were known of a model, its quality is as it was reckoned then, with the `quality` of the \
             policy of that time."
                .to_owned(),
        );
        if terms {
            lines.push(
                "What this policy's `terms` would find is not known: texts are not kept."
                    .to_owned(),
            );
        }
    }
    lines
}

fn sources(sources: &Sources) -> String {
    let Sources { measured, reported, estimated, unknown } = sources;
    let all = [
        (measured, "measured"),
        (reported, "reported"),
        (estimated, "estimated"),
        (unknown, "unknown"),
    ];
    let some = all.into_iter().filter(|(count, _)| **count > 0);
    let words: Vec<String> = some.map(|(count, word)| format!("{word} in {count}")).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

pub(super) fn same(same: &Same) -> String {
    let mut lines = vec![format!(
        "{} decisions of policy {} are the same again, {} are others",
        same.same,
        same.policy.short(),
        same.different.count
    )];
    if same.different.count > 0 {
        lines.push(format!("  {}", shown(&same.different)));
        lines.extend(
            same.programs
                .iter()
                .map(|(program, count)| format!("  {count} made by tieline {program}")),
        );
    }
    if same.of_others > 0 {
        lines.push(format!("not among them: {} of other policies", same.of_others));
    }
    lines.extend(left_out(same.by_name, same.unreadable, same.newer));
    lines.join("\n")
}
