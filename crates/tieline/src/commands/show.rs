//! `tieline show`

use std::fs::File;
use std::path::PathBuf;

use serde::Serialize;
use tieline_router::switch::{self, Figures, Known, Report as Profile, Told};
use tieline_store::{Gguf, Model};
use tieline_types::Bytes;

use super::list::{Row, date, table, trimmed, trust};
use super::made::Made;
use crate::app::App;
use crate::args::Show;
use crate::bars;
use crate::failure::{Failure, with_causes};
use crate::plain::plain;
use crate::serving;
use crate::switching::Place;

/// A model in full, for programs.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    row: Row,
    path: PathBuf,
    verified_now: bool,
    /// The rank of an adapter.
    rank: Option<u64>,
    tensor_types: Vec<TensorType>,
    chat_template: Option<String>,
    profile: Option<Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    made: Option<Made>,
}

#[derive(Serialize)]
struct TensorType {
    name: &'static str,
    tensors: usize,
    bytes: Bytes,
}

pub(super) fn show(app: &App, args: &Show) -> Result<(), Failure> {
    let made = Made::find(app, &args.model)?;
    // One with adapters is shown by what it is made of.
    let base = made.as_ref().map(|made| made.base.split('+').next().unwrap_or(&made.base));
    let model = app.installed(base.unwrap_or(&args.model))?;
    if args.verify {
        verify(app, &model)?;
    }
    let path = app.store.open_model(&model)?.path;
    let file = File::open(&path)
        .map_err(|error| Failure::user(format!("cannot read {}: {error}", path.display())))?;
    let gguf = Gguf::read(file).map_err(|error| {
        Failure::user(format!("cannot read the header of {}: {error}", model.name))
    })?;
    let template = gguf.chat_template().map(str::to_owned);
    if args.template {
        let missing = || Failure::user(format!("{} has no chat template", model.name));
        return app.output.line(&template.ok_or_else(missing)?);
    }
    let tensor_types = tensor_types(&gguf);
    let profile = profile(app, &model)?;
    if app.output.is_json() {
        let row = Row::from(&model);
        let report = Report {
            row,
            path,
            verified_now: args.verify,
            rank: gguf.adapter_rank(),
            tensor_types,
            chat_template: template,
            profile,
            made,
        };
        return app.output.value(&report);
    }
    let mut lines = facts(&model, &path);
    if let Some(rank) = gguf.adapter_rank() {
        lines.insert(1, ("adapter", format!("rank {rank}; ask for MODEL+{}", model.name)));
    }
    lines.extend(made.iter().flat_map(before));
    lines.push(("weights", String::new()));
    let mut text: Vec<String> = lines
        .iter()
        .map(|(name, fact)| format!("{name:<13} {fact}").trim_end().to_owned())
        .collect();
    text.push(types_table(&tensor_types));
    text.extend(profile.iter().flat_map(profile_lines));
    app.output.line(&text.join("\n"))
}

fn verify(app: &App, model: &Model) -> Result<(), Failure> {
    let bar = bars::counted(app.output, format!("hashing {}", model.name), model.size.0);
    let result = app.store.verify(model, &mut |done| bar.set_position(done.0));
    bar.finish_and_clear();
    result?;
    app.output.talk(&format!("{} holds {}", model.name, model.digest));
    Ok(())
}

fn tensor_types(gguf: &Gguf) -> Vec<TensorType> {
    let shares = gguf.bytes_by_type().into_iter();
    shares
        .map(|(kind, share)| TensorType {
            name: kind.name(),
            tensors: share.tensors,
            bytes: share.bytes,
        })
        .collect()
}

fn facts(model: &Model, path: &std::path::Path) -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    vec![
        ("name", model.name.clone()),
        ("architecture", model.architecture.clone().unwrap_or_else(unknown)),
        ("parameters", model.parameters.map_or_else(unknown, parameters)),
        ("quantisation", model.quantisation.clone().unwrap_or_else(unknown)),
        ("context", model.context_length.map_or_else(unknown, |tokens| tokens.to_string())),
        ("licence", model.licence.clone().unwrap_or_else(unknown)),
        (
            "template",
            model.template_digest.map_or_else(|| "none".to_owned(), |digest| digest.to_string()),
        ),
        ("size", model.size.to_string()),
        ("digest", model.digest.to_string()),
        ("trust", trust(model.trust).to_owned()),
        ("reference", model.reference.clone()),
        ("source", model.source.clone()),
        ("pulled", date(model.pulled_at_unix_s)),
        ("file", path.display().to_string()),
    ]
}

/// What stands before the model's conversations.
fn before(made: &Made) -> Vec<(&'static str, String)> {
    let mut lines = vec![("made as", format!("{} of {}", made.name, made.base))];
    lines.extend(made.system.as_ref().map(|system| ("system", plain(system.expose()))));
    let parameters = made.parameters.iter().map(|(name, value)| format!("{name} {value}"));
    let parameters = parameters.collect::<Vec<_>>().join(", ");
    if !parameters.is_empty() {
        lines.push(("parameters", plain(&parameters)));
    }
    if made.messages > 0 {
        lines.push(("messages", format!("{} stand before each conversation", made.messages)));
    }
    lines
}

/// What is known of how fast and good it is; `None`: it writes no text.
fn profile(app: &App, model: &Model) -> Result<Option<Profile>, Failure> {
    // A policy with faults is said elsewhere.
    let policy = Place::of(app).policy().unwrap_or_default();
    let now_unix_s = jiff::Timestamp::now().as_second();
    let known = Known::read(&app.store, now_unix_s);
    let known = known.map_err(|error| Failure::ours(with_causes(&error)))?;
    let learned = app.store.learned().map_err(|error| Failure::ours(with_causes(&error)))?;
    let mut cards = serving::cards(app)?;
    cards.retain(|card| card.name == model.name);
    let here = switch::local_candidates((&policy, &known), &cards, &learned).into_iter().next();
    Ok(here.map(|(candidate, figures)| Profile::of(candidate, figures)))
}

/// The figures of a profile with what they are from, a line each.
fn profile_lines(profile: &Profile) -> Vec<String> {
    let Figures {
        prefill_tps,
        decode_tps,
        load_s,
        first_token_s,
        joules_per_prompt_token,
        joules_per_token,
    } = profile.figures;
    let figures = [
        ("reads", prefill_tps, "tokens/s"),
        ("writes", decode_tps, "tokens/s"),
        ("loads in", load_s, "s"),
        ("begins after", first_token_s, "s"),
        ("reading takes", joules_per_prompt_token, "J/token"),
        ("writing takes", joules_per_token, "J/token"),
    ];
    let mut lines: Vec<String> = figures
        .into_iter()
        .filter_map(|(what, told, unit)| {
            let Told { value, source, by, samples, at_unix_ms } = told?;
            let mut line = format!("{what:<13} {value:.3} {unit} ({} by {by}", source.as_str());
            if let Some(samples) = samples {
                line.push_str(&format!(", {samples} samples"));
            }
            if let Some(at) = at_unix_ms {
                line.push_str(&format!(", {}", date(at / 1000)));
            }
            Some(line + ")")
        })
        .collect();
    lines.extend(profile.quality.iter().map(|(task, one)| {
        let what = format!("good at {task}");
        let source = one.source.as_str();
        format!(
            "{what:<13} {:.3}, above {:.3} ({source}, {} answers)",
            one.mean, one.low, one.samples
        )
    }));
    lines.extend(profile.calibrated.iter().map(|(task, one)| {
        let what = format!("sure of {task}");
        format!("{what:<13} calibrated on {} answers, error {:.3}", one.answers, one.ece)
    }));
    lines
}

fn types_table(types: &[TensorType]) -> String {
    let mut table = table(&[]);
    for kind in types {
        let tensors = if kind.tensors == 1 { "tensor" } else { "tensors" };
        table.add_row([
            kind.name.to_owned(),
            format!("{} {tensors}", kind.tensors),
            kind.bytes.to_string(),
        ]);
    }
    trimmed(&table).lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

/// 134,515,008 reads as `134.5 million`.
fn parameters(count: u64) -> String {
    const UNITS: [(&str, u64); 3] =
        [("trillion", 1_000_000_000_000), ("billion", 1_000_000_000), ("million", 1_000_000)];
    match UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => {
            let tenths = count / (size / 10);
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_read_well() {
        assert_eq!(parameters(134_515_008), "134.5 million");
        assert_eq!(parameters(7_000_000_000), "7.0 billion");
        assert_eq!(parameters(999), "999");
    }
}
