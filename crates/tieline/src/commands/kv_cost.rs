//! `tieline bench --kv-cost`, and what it found, kept for the warning that a model loaded with such a KV
//! cache gets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tieline_engine::{LocalModel, probe};
use tieline_lab::{KvCost, KvCostPlan, KvCostRow};
use tieline_store::Model;
use tieline_types::{Digest, KvType, RunnerBuild};

use super::list::{table, trimmed};
use crate::app::App;
use crate::args::Bench;
use crate::bars;
use crate::failure::Failure;

/// The longest profile read.
const MAX_BYTES: u64 = 64 * 1024;

/// What was measured of a model here.
#[derive(Serialize, Deserialize)]
struct Profile {
    processor: String,
    kv_cost: KvCost,
}

/// Figures with all that they depend on, for programs.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    processor: &'a str,
    system: &'a str,
    threads: u32,
    #[serde(flatten)]
    figures: &'a KvCost,
}

pub(super) fn kv_cost(app: &App, args: &Bench) -> Result<(), Failure> {
    let model = app.installed_or_pulled(&args.model)?;
    // Until all is measured, nobody may remove it.
    let _lease = app.store.lease(&model)?;
    let plan = KvCostPlan {
        config: app.engine()?,
        name: model.name.clone(),
        file: app.store.open_model(&model)?,
        threads: args.load.threads.unwrap_or_else(probe::cores),
        places: args.places,
    };
    let bar = bars::counted(app.output, format!("measuring {}", model.name), 3);
    let measured = tieline_lab::kv_cost(&plan, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    let cost =
        app.block_on_interruptible(async { Ok(measured.await?) }, "interrupted while measuring");
    bar.finish_and_clear();
    let cost = cost?;
    let machine = probe::machine();
    let profile = Profile { processor: machine.processor.clone(), kv_cost: cost };
    if let Err(error) = keep(&path(&app.home, model.digest), &profile) {
        app.output.warn(&format!("what was measured is not kept: {error}"));
    }
    let cost = &profile.kv_cost;
    if app.output.is_json() {
        return app.output.value(&Report {
            model: &model.name,
            digest: model.digest,
            processor: &machine.processor,
            system: &machine.system,
            threads: plan.threads,
            figures: cost,
        });
    }
    app.output.line(&text(&model, &profile))
}

fn text(model: &Model, profile: &Profile) -> String {
    let Profile { processor, kv_cost: KvCost { build, places, rows } } = profile;
    let mut table = table(&["KV CACHE", "KL", "WORST", "SAME TOKEN"]);
    for KvCostRow { kv, kl_nats, kl_error, kl_worst, same_top } in rows {
        table.add_row([
            kv.as_str().to_owned(),
            format!("{kl_nats:.6} ± {kl_error:.6}"),
            format!("{kl_worst:.4}"),
            format!("{:.1} %", same_top * 100.0),
        ]);
    }
    [
        format!("model    {}, {}", model.name, model.digest),
        format!("machine  {processor}"),
        format!("kernels  {} (llama.cpp {})", build.kernels.join(" "), build.llama_cpp),
        format!("text     {places} places of one text, each beside a KV cache of f16"),
        String::new(),
        trimmed(&table),
        String::new(),
        "KL: mean divergence of the next token's probabilities in nats with its standard error, from the \
         20 likeliest tokens and the rest as one: the true one is no smaller.\n\
         SAME TOKEN: how often the likeliest token stayed the same."
            .to_owned(),
    ]
    .join("\n")
}

/// What somebody should know who loaded `model` with a KV cache of these types; `None` where there is nothing.
pub(crate) fn warning(
    home: &Path,
    model: &Model,
    types: [KvType; 2],
    local: &LocalModel,
) -> Option<String> {
    if !types.contains(&KvType::Q4_0) {
        return None;
    }
    let profile = read(&path(home, model.digest));
    let processor = probe::machine().processor;
    Some(words(&model.name, profile.as_ref(), (local.build(), &processor)))
}

/// The warning, citing what was measured here by this build.
fn words(
    name: &str,
    profile: Option<&Profile>,
    (build, processor): (&RunnerBuild, &str),
) -> String {
    let costs = "a KV cache of q4_0 costs quality";
    let here =
        profile.filter(|profile| profile.processor == processor && profile.kv_cost.build == *build);
    let row = |kv| {
        here.and_then(|profile| profile.kv_cost.rows.iter().find(|row: &&KvCostRow| row.kv == kv))
    };
    let Some(q4) = row(KvType::Q4_0) else {
        return format!(
            "{costs}: how much is not measured for this model on this machine; \
             run tieline bench {name} --kv-cost"
        );
    };
    let beside = row(KvType::Q8_0)
        .map_or_else(String::new, |q8| format!(" (with q8_0 by {:.5})", q8.kl_nats));
    let places = here.map_or(0, |profile| profile.kv_cost.places);
    format!(
        "{costs}: measured here, it moves the probabilities of this model's next token by {:.5} nats or \
         more on average{beside}, and changes the likeliest one at {:.1} % of {places} places",
        q4.kl_nats,
        (1.0 - q4.same_top) * 100.0
    )
}

fn path(home: &Path, digest: Digest) -> PathBuf {
    let name = digest.to_string().replace(':', "-");
    home.join("profiles").join(format!("{name}.json"))
}

/// Writes a profile, whole or not at all, in place of what is there.
fn keep(path: &Path, profile: &Profile) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let written =
        fs::write(&new, serde_json::to_vec_pretty(profile)?).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // What is half written is of no use.
        let _ = fs::remove_file(&new);
    }
    written
}

/// A profile that cannot be read is none: it can be measured again.
fn read(path: &Path) -> Option<Profile> {
    let length = path.metadata().ok()?.len();
    let text = (length <= MAX_BYTES).then(|| fs::read(path).ok()).flatten()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        let row = |kv, kl_nats, same_top| KvCostRow {
            kv,
            kl_nats,
            kl_error: 0.001,
            kl_worst: 1.0,
            same_top,
        };
        let rows = vec![row(KvType::Q8_0, 0.0004, 0.99), row(KvType::Q4_0, 0.031, 0.906)];
        let build = RunnerBuild { version: "1".to_owned(), ..RunnerBuild::default() };
        Profile { processor: "One".to_owned(), kv_cost: KvCost { build, places: 250, rows } }
    }

    #[test]
    fn the_warning_cites_what_was_measured_here_and_else_says_how_to() {
        let (kept, build) = (profile(), profile().kv_cost.build);
        let other = RunnerBuild::default();
        let cited = "a KV cache of q4_0 costs quality: measured here, it moves the probabilities of this \
            model's next token by 0.03100 nats or more on average (with q8_0 by 0.00040), and changes the \
            likeliest one at 9.4 % of 250 places";
        let unmeasured = "a KV cache of q4_0 costs quality: how much is not measured for this model on \
            this machine; run tieline bench m --kv-cost";
        assert_eq!(words("m", Some(&kept), (&build, "One")), cited);
        // Figures of another machine or build say nothing about this one.
        assert_eq!(words("m", Some(&kept), (&build, "Two")), unmeasured);
        assert_eq!(words("m", Some(&kept), (&other, "One")), unmeasured);
        assert_eq!(words("m", None, (&build, "One")), unmeasured);
    }

    #[test]
    fn a_profile_is_kept_and_a_broken_one_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), Digest([7; 32]));
        assert!(read(&path).is_none());
        keep(&path, &profile()).unwrap();
        assert_eq!(read(&path).unwrap().kv_cost, profile().kv_cost);
        fs::write(&path, "{}").unwrap();
        assert!(read(&path).is_none());
        fs::write(&path, vec![b' '; 70_000]).unwrap();
        assert!(read(&path).is_none());
    }
}
