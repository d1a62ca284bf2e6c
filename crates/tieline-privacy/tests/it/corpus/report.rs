//! The tables of the document.

use std::fmt::Write;

use super::figures::{Count, Figures};
use super::{GENERATED, UNSEEN, WRITTEN};

const BEGIN: &str = "<!-- figures: begin -->\n";
const END: &str = "<!-- figures: end -->\n";

/// The document with figures of today; `None` where it has no place for them.
pub(crate) fn renewed(document: &str) -> Option<String> {
    let (before, rest) = document.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{}\n{END}{after}", tables()))
}

fn tables() -> String {
    let mut out = String::new();
    for (title, file) in
        [("Generated", GENERATED), ("By hand, seen", WRITTEN), ("By hand, unseen", UNSEEN)]
    {
        let figures = Figures::of(file);
        let _ = writeln!(out, "**{title}**\n");
        out.push_str(
            "| kind | spans | precision | recall | F2 | hidden |\n|---|---:|---:|---:|---:|---:|\n",
        );
        for (entity, count) in figures.by_kind() {
            row(&mut out, entity.as_str(), count);
        }
        row(&mut out, "all", figures.total());
        out.push('\n');
        if title != "Generated" {
            list(&mut out, "Labelled and missed, or cut wrongly", &figures.missed);
            list(&mut out, "Found and not labelled so", &figures.wrong);
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn row(out: &mut String, name: &str, count: Count) {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let (precision, recall) = (percent(count.precision()), percent(count.recall()));
    let (f2, hides) = (percent(count.f2()), percent(count.hides()));
    let _ =
        writeln!(out, "| {name} | {} | {precision} | {recall} | {f2} | {hides} |", count.labelled);
}

fn list(out: &mut String, title: &str, spans: &[(tieline_privacy::Entity, String)]) {
    let _ = writeln!(out, "{title}:\n");
    for (entity, words) in spans {
        let _ = writeln!(out, "- {entity}: `{}`", words.replace('\n', "⏎").replace('`', "'"));
    }
    if spans.is_empty() {
        out.push_str("- none\n");
    }
    out.push('\n');
}
