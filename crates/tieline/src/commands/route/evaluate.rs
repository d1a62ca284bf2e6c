//! `tieline route evaluate`

use std::fs::File;
use std::io::BufReader;

use comfy_table::CellAlignment;
use tieline_router::quality::confidence::Interval;
use tieline_router::quality::evaluate::{
    Evaluation, ReadTable, Routed, Settings, evaluate as judge,
};

use crate::args::Evaluate;
use crate::commands::list::{table, trimmed};
use crate::failure::Failure;
use crate::output::Output;

pub(super) fn evaluate(output: &Output, args: &Evaluate) -> Result<(), Failure> {
    let path = args.file.display();
    let file = File::open(&args.file)
        .map_err(|error| Failure::user(format!("cannot read the outcomes in {path}: {error}")))?;
    let refused = |error: &dyn std::error::Error| {
        Failure::user(format!("cannot evaluate {path}: {error}"))
            .with_hint("docs/quality.md describes the table")
    };
    let read = ReadTable { weak: args.weak.clone(), strong: args.strong.clone() };
    let outcomes = read.read(BufReader::new(file)).map_err(|error| refused(&error))?;
    let settings = Settings {
        folds: usize::from(args.folds),
        few: usize::from(args.few),
        seed: args.seed,
        ..Settings::default()
    };
    let evaluation = judge(&outcomes, settings).map_err(|error| refused(&error))?;
    if output.is_json() {
        return output.value(&evaluation);
    }
    output.line(&text(&evaluation))
}

fn text(evaluation: &Evaluation) -> String {
    let mut lines = vec![
        format!(
            "{} rows, {} groups; {} left out for want of an outcome",
            evaluation.rows, evaluation.groups, evaluation.left_out
        ),
        format!("weak    {}  {}", percent(evaluation.weak_accuracy), evaluation.weak),
        format!("strong  {}  {}", percent(evaluation.strong_accuracy), evaluation.strong),
        format!("the weak one is better on {:.1} % of the rows", 100.0 * evaluation.weak_better),
        String::new(),
        trimmed(&figures(evaluation)),
        String::new(),
    ];
    lines.extend(plot(evaluation));
    lines.push(String::new());
    lines.push(
        "APGR: mean share of the gap that is recovered; the other figures: least share of strong calls for 95 % of \
         the strong model's accuracy, and for 50 % and 80 % of the gap. In brackets: 95 % intervals."
            .to_owned(),
    );
    lines.join("\n")
}

fn figures(evaluation: &Evaluation) -> comfy_table::Table {
    let mut header = vec!["ROUTER", "APGR", "95 % ACCURACY", "50 % GAP", "80 % GAP"];
    let costs = evaluation.routers.iter().all(|router| router.cost_at_95_percent.is_some());
    if costs {
        header.push("COST AT 95 %");
    }
    let mut table = table(&header);
    for router in &evaluation.routers {
        let apgr = router.apgr;
        let mut row = vec![
            router.router.clone(),
            format!("{:.3} [{:.3}, {:.3}]", apgr.value, apgr.low, apgr.high),
            percent(router.calls_for_95_percent),
            percent(router.calls_for_half_gap),
            percent(router.calls_for_80_percent_gap),
        ];
        row.extend(router.cost_at_95_percent.map(|cost| format!("{cost:.3e}")));
        table.add_row(row);
    }
    for index in 1..header.len() {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn percent(share: Interval) -> String {
    format!("{:.1} % [{:.1}, {:.1}]", 100.0 * share.value, 100.0 * share.low, 100.0 * share.high)
}

/// The best router that learns, as a bar of recovered gap for each tenth of strong calls.
fn plot(evaluation: &Evaluation) -> Vec<String> {
    let inner = evaluation.routers.get(1..evaluation.routers.len().saturating_sub(1));
    let best =
        inner.unwrap_or_default().iter().max_by(|a, b| a.apgr.value.total_cmp(&b.apgr.value));
    let Some(best) = best else { return vec!["no column to learn a router from".to_owned()] };
    let mut lines = vec![format!("accuracy by strong calls, {}", best.router)];
    lines.extend((0_u8..=10).zip(&best.accuracy_by_tenth).map(|(tenth, accuracy)| {
        format!("{:>3} %  {:.1} %  {}", tenth * 10, 100.0 * accuracy, bar(*accuracy, best))
    }));
    lines
}

/// Forty marks from the weak model's accuracy to the curve's highest.
fn bar(accuracy: f64, routed: &Routed) -> String {
    let least = routed.accuracy_by_tenth.iter().copied().fold(f64::INFINITY, f64::min);
    let most = routed.accuracy_by_tenth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let share = (accuracy - least) / (most - least).max(1e-9);
    (1..=40).filter(|mark| f64::from(*mark) <= 40.0 * share + 0.5).map(|_| '#').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forty alike and forty that only the strong model can do.
    fn outcomes(folder: &tempfile::TempDir) -> std::path::PathBuf {
        let path = folder.path().join("outcomes.csv");
        let easy = "easy,1,0.001,1,0.01\n".repeat(40);
        let hard = "hard,0,0.001,1,0.01\n".repeat(40);
        let header = "group,w.correct,w.cost,s.correct,s.cost\n";
        std::fs::write(&path, format!("{header}{easy}{hard}")).unwrap();
        path
    }

    #[test]
    fn a_table_that_groups_decide_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let table = ReadTable::default().read(File::open(outcomes(&folder)).unwrap()).unwrap();
        let shown = text(&judge(&table, Settings::default()).unwrap());
        let line = |start: &str| shown.lines().find(|line| line.starts_with(start)).unwrap();
        assert_eq!(line("weak").split_whitespace().nth(1), Some("50.0"));
        assert!(line("group table  ").contains("0.750"), "{shown}");
        assert!(line("group table  ").contains("45.0 %"), "{shown}");
        assert!(line("random mix").contains("90.0 %"), "{shown}");
        assert!(line(" 50 %").ends_with(&"#".repeat(40)), "{shown}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let args = Evaluate {
            file: "no-such.csv".into(),
            weak: None,
            strong: None,
            folds: 5,
            few: 500,
            seed: 1,
        };
        let failure = evaluate(&Output::new(false, true), &args).unwrap_err();
        assert!(failure.message.starts_with("cannot read the outcomes in no-such.csv"));
    }
}
