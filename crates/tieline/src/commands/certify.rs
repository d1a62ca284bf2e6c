//! `tieline certify`

use serde::Serialize;
use tieline_engine::probe;
use tieline_lab::{Certificate, CertifyPlan, Row};
use tieline_store::Model;
use tieline_types::{Digest, Tokens};

use super::list::{table, trimmed};
use crate::app::App;
use crate::args::Certify;
use crate::bars;
use crate::failure::Failure;

/// A certificate with what it is of, for programs.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    processor: &'a str,
    system: &'a str,
    deterministic_under: &'a [&'a str],
    not_under: &'a [&'a str],
    not_measured: &'a [&'a str],
    #[serde(flatten)]
    certificate: &'a Certificate,
}

pub(super) fn certify(app: &App, args: &Certify) -> Result<(), Failure> {
    let model = app.installed_or_pulled(&args.model)?;
    // Until all is measured, nobody may remove it.
    let _lease = app.store.lease(&model)?;
    let plan = CertifyPlan {
        config: app.engine()?,
        name: model.name.clone(),
        file: app.store.open_model(&model)?,
        tokens: Tokens(args.tokens),
        threads: args.threads.unwrap_or_else(probe::cores),
    };
    let bar = bars::counted(app.output, format!("certifying {}", model.name), 1);
    let certify = tieline_lab::certify(&plan, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    let certificate =
        app.block_on_interruptible(async { Ok(certify.await?) }, "interrupted while measuring");
    bar.finish_and_clear();
    print(app, &model, &certificate?)
}

fn print(app: &App, model: &Model, certificate: &Certificate) -> Result<(), Failure> {
    let machine = probe::machine();
    let [same, different, unmeasured] = certificate.verdict();
    if app.output.is_json() {
        return app.output.value(&Report {
            model: &model.name,
            digest: model.digest,
            processor: &machine.processor,
            system: &machine.system,
            deterministic_under: &same,
            not_under: &different,
            not_measured: &unmeasured,
            certificate,
        });
    }
    let build = &certificate.build;
    let lines = [
        format!("model    {}, {}", model.name, model.digest),
        format!("machine  {}", machine.processor),
        format!("kernels  {} (llama.cpp {})", build.kernels.join(" "), build.llama_cpp),
        format!(
            "text     {} of prompt, {} of answer, greedy",
            certificate.prompt_tokens, certificate.answer_tokens
        ),
        String::new(),
        rows(&certificate.rows),
        String::new(),
        "KL: mean divergence in nats while the text is the same, from the 20 likeliest tokens and the rest \
         as one: the true one is no smaller. MOST: the farthest that one of these moved.\n\
         LOGITS: - where answers run as usual, not deterministically; the 20 likeliest are compared then."
            .to_owned(),
        String::new(),
        verdict(&[same, different, unmeasured]),
    ];
    app.output.line(&lines.join("\n"))
}

fn rows(rows: &[Row]) -> String {
    let mut table = table(&["VARIATION", "LOGITS", "TOKENS", "KL", "MOST"]);
    for row in rows {
        table.add_row(cells(row));
    }
    trimmed(&table)
}

fn cells(row: &Row) -> [String; 5] {
    let Some(difference) = &row.difference else {
        let why = row.error.as_deref().unwrap_or("unknown why");
        let unknown = || "?".to_owned();
        let why = format!("not measured: {why}");
        return [row.name.clone(), unknown(), unknown(), why, unknown()];
    };
    let logits = match difference.bitwise {
        Some(true) => "same bits",
        Some(false) => "differ",
        None => "-",
    };
    let tokens = match difference.first_difference {
        None => "same".to_owned(),
        Some(position) => format!("differ at {position}"),
    };
    let nats = |nats: Option<f64>| match nats {
        // Ten times smaller is rounding of the sums.
        Some(nats) if nats < 1e-9 => "0".to_owned(),
        Some(nats) => format!("{nats:.6}"),
        None => "-".to_owned(),
    };
    let (kl, most) = (nats(difference.kl_nats), nats(difference.max_change_nats));
    [row.name.clone(), logits.to_owned(), tokens, kl, most]
}

fn verdict([same, different, unmeasured]: &[Vec<&str>; 3]) -> String {
    let list = |names: &[&str]| match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    };
    let more = match unmeasured.as_slice() {
        [] => String::new(),
        names => format!("; not measured: {}", names.join(", ")),
    };
    format!("deterministic under: {}; not under: {}{more}", list(same), list(different))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_names_all() {
        let line = verdict(&[vec!["rerun", "new process"], vec!["ubatch 8"], vec![]]);
        assert_eq!(line, "deterministic under: rerun, new process; not under: ubatch 8");
        let line = verdict(&[vec![], vec![], vec!["x"]]);
        assert_eq!(line, "deterministic under: nothing; not under: nothing; not measured: x");
    }
}
