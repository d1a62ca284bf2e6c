//! Reads the policy's backends and models.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use tieline_types::{MicroUsd, Price, Zone};
use toml::de::DeValue;

use super::fault::Faults;
use super::table::{Table, read_number};
use super::{Alias, BackendPolicy, KeySource, ModelPolicy, Protocol, ToolTask};
use crate::carry::Program;
use crate::quality::outcomes::is_task;

/// How long a program may take, where the policy does not say.
const CHECK_TIME: Duration = Duration::from_secs(10);
/// The longest name of a backend, a model or an alias.
const MAX_NAME: usize = 128;

pub(super) fn zones() -> [(&'static str, Zone); 4] {
    Zone::ALL.map(|zone| (zone.as_str(), zone))
}

pub(super) fn backends(
    root: &mut Table<'_>,
    faults: &mut Faults<'_>,
) -> BTreeMap<String, BackendPolicy> {
    let mut all = BTreeMap::new();
    for (name, mut table) in root.named("backends", faults) {
        if name.is_empty() || name.contains('/') || name.len() > MAX_NAME {
            faults.add(
                &table.span,
                "backends",
                "a backend's name is 1 to 128 bytes, with no slash",
            );
        }
        if let Some(backend) = backend(&mut table, faults) {
            all.insert(name, backend);
        }
        table.finish(faults);
    }
    all
}

fn backend(table: &mut Table<'_>, faults: &mut Faults<'_>) -> Option<BackendPolicy> {
    let protocol = table.word("protocol", &Protocol::ALL.map(|one| (one.as_str(), one)), faults);
    let zone = table.word("zone", &zones(), faults);
    let url = table.text("url", faults);
    let flavour = table.text("flavour", faults);
    let key = key(table, faults);
    let models = models("models", table, faults);
    for (name, there) in [
        ("protocol", table.value("protocol").is_some()),
        ("zone", table.value("zone").is_some()),
        ("url", table.value("url").is_some()),
    ] {
        if !there {
            table.fault("", format!("the key {name:?} is missing"), faults);
        }
    }
    let (protocol, zone, url) = (protocol?, zone?, url?);
    check_url(&url, zone, table, faults);
    Some(BackendPolicy { protocol, flavour, url, zone, key, models })
}

fn check_url(url: &str, zone: Zone, table: &Table<'_>, faults: &mut Faults<'_>) {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let authority = host.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match authority {
        None | Some("") => {
            table.fault("url", "expected a URL that begins with https:// or http://", faults);
        }
        Some(authority) if authority.contains('@') => {
            table.fault("url", "no name or password stands in a URL: use key", faults);
        }
        Some(authority) => {
            let bare = match authority.strip_prefix('[') {
                Some(v6) => v6.split(']').next().unwrap_or_default(),
                None => authority.split(':').next().unwrap_or_default(),
            };
            // As an address: a host's name may begin with 127 too.
            let address: Option<IpAddr> = bare.parse().ok();
            let near = bare == "localhost" || address.is_some_and(|address| address.is_loopback());
            if zone == Zone::Host && !near {
                let problem = "zone \"host\" is this machine alone, and the URL is not: say the zone \
                               that it is in";
                table.fault("url", problem, faults);
            }
            let cloud = zone >= Zone::CloudZeroRetention;
            // A relay on this machine encrypts what goes on from there.
            if cloud && !near && url.starts_with("http://") {
                table.fault("url", "a cloud is reached by https:// alone", faults);
            }
        }
    }
}

fn key(table: &mut Table<'_>, faults: &mut Faults<'_>) -> Option<KeySource> {
    const WANTED: &str = "no key stands in a policy: write { env = \"NAME\" }, { file = \"PATH\" } or \
                          { keyring = \"NAME\" }";
    let value = table.value("key")?;
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        // The value may be a key: it is not repeated.
        table.fault("key", WANTED, faults);
        return None;
    }
    let mut source = table.table("key", faults)?;
    let read = [
        source.text("env", faults).map(KeySource::Env),
        source.text("file", faults).map(KeySource::File),
        source.text("keyring", faults).map(KeySource::Keyring),
    ];
    source.finish(faults);
    let mut said = read.into_iter().flatten();
    match (said.next(), said.next()) {
        (Some(one), None) => Some(one),
        _ => {
            table.fault("key", WANTED, faults);
            None
        }
    }
}

pub(super) fn models(
    key: &'static str,
    table: &mut Table<'_>,
    faults: &mut Faults<'_>,
) -> BTreeMap<String, ModelPolicy> {
    let mut all = BTreeMap::new();
    for (name, mut table) in table.named(key, faults) {
        if name.is_empty() || name.len() > MAX_NAME {
            faults.add(&table.span, key, "a model's name is 1 to 128 bytes");
        }
        all.insert(name, model(&mut table, faults));
        table.finish(faults);
    }
    all
}

fn model(table: &mut Table<'_>, faults: &mut Faults<'_>) -> ModelPolicy {
    const SPEED: Range<f64> = 0.001..1e9;
    ModelPolicy {
        context: table.tokens("context", faults),
        max_output: table.tokens("max_output", faults),
        tools: table.flag("tools", faults),
        vision: table.flag("vision", faults),
        json_schema: table.flag("json_schema", faults),
        reasoning: table.flag("reasoning", faults),
        logprobs: table.flag("logprobs", faults),
        embeddings: table.flag("embeddings", faults),
        rerank: table.flag("rerank", faults),
        space: table.text("space", faults),
        licence: table.text("licence", faults),
        price: price(table, faults),
        quality: quality(table, faults),
        prefill_tps: table.number("prefill_tps", SPEED, faults),
        decode_tps: table.number("decode_tps", SPEED, faults),
        first_token: table.time("first_token", faults),
    }
}

/// Dollars for a million tokens. What is not said of a cache costs as much as any other.
fn price(table: &mut Table<'_>, faults: &mut Faults<'_>) -> Option<Price> {
    let mut price = table.table("price", faults)?;
    let input = price.money("input", faults);
    let output = price.money("output", faults);
    let cached_input = price.money("cached_input", faults);
    let cache_write = price.money("cache_write", faults);
    let request = price.money("request", faults).unwrap_or(MicroUsd::ZERO);
    for name in ["input", "output"] {
        let there = price.entries().any(|(key, _)| key == name);
        if !there {
            price.fault(
                "",
                format!("the key {name:?} is missing: dollars for a million tokens"),
                faults,
            );
        }
    }
    price.finish(faults);
    let (input, output) = (input?, output?);
    Some(Price {
        input,
        cached_input: cached_input.unwrap_or(input),
        cache_write: cache_write.unwrap_or(input),
        output,
        request,
    })
}

/// One number for all tasks, or a table of tasks.
fn quality(table: &mut Table<'_>, faults: &mut Faults<'_>) -> BTreeMap<String, f64> {
    const QUALITY: Range<f64> = 0.0..1.0;
    let is_table =
        matches!(table.value("quality").map(|value| value.get_ref()), Some(DeValue::Table(_)));
    if !is_table {
        let one = table.number("quality", QUALITY, faults);
        return one.map(|one| (crate::choose::ANY.to_owned(), one)).into_iter().collect();
    }
    let Some(tasks) = table.table("quality", faults) else { return BTreeMap::new() };
    let mut all = BTreeMap::new();
    for (task, value) in tasks.entries() {
        if let Some(number) = read_number(value, QUALITY, "quality", faults) {
            all.insert(task.to_owned(), number);
        }
    }
    all
}

pub(super) fn aliases(root: &mut Table<'_>, faults: &mut Faults<'_>) -> BTreeMap<String, Alias> {
    let mut all = BTreeMap::new();
    for (name, mut table) in root.named("models", faults) {
        if name.is_empty() || name.contains(['/', ':']) || name.len() > MAX_NAME {
            let problem = "an alias's name is 1 to 128 bytes, with no slash or colon";
            faults.add(&table.span, "models", problem);
        }
        let alias = Alias {
            task: table.text("task", faults),
            candidates: table.globs("candidates", faults),
            farthest: table.word("farthest", &zones(), faults),
            first_token: table.time("first_token", faults),
            total: table.time("total", faults),
            check: program(&mut table, faults),
        };
        for (key, time) in [("first_token", alias.first_token), ("total", alias.total)] {
            if time.is_some_and(|time| time.is_zero()) {
                table.fault(key, "no time at all is no deadline", faults);
            }
        }
        table.finish(faults);
        all.insert(name, alias);
    }
    all
}

pub(super) fn is_whole_path(path: &str) -> bool {
    path.starts_with("~/") || Path::new(path).is_absolute()
}

/// The program that looks through answers.
fn program(table: &mut Table<'_>, faults: &mut Faults<'_>) -> Option<Program> {
    let is_there = table.value("check").is_some();
    let words = table.texts("check", faults);
    let time = table.time("check_time", faults);
    let reads = table.texts("check_reads", faults);
    let is_shut = table.flag("check_jail", faults).unwrap_or(true);
    if words.first().is_some_and(String::is_empty) {
        table.fault("check", "the first word is the program, and it is empty", faults);
    }
    for key in ["check_time", "check_reads", "check_jail"] {
        if table.value(key).is_some() && !is_there {
            table.fault(key, "there is no check that it could be for", faults);
        }
    }
    if !is_shut && !reads.is_empty() {
        table.fault("check_reads", "without its jail a check reads what you may", faults);
    }
    if !reads.iter().all(|path| is_whole_path(path)) {
        table.fault("check_reads", "a path is named whole, or from ~/", faults);
    }
    if time.is_some_and(|time| time.is_zero()) {
        table.fault("check_time", "no program ends in no time at all", faults);
    }
    let reads = is_shut.then_some(reads);
    (!words.is_empty()).then(|| Program { words, time: time.unwrap_or(CHECK_TIME), reads })
}

pub(super) fn tasks(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Vec<ToolTask> {
    let mut all = Vec::new();
    for mut table in root.rows("task", faults) {
        for key in ["name", "tool"] {
            if table.value(key).is_none() {
                table.fault("", format!("the key {key:?} is missing"), faults);
            }
        }
        let name = table.text("name", faults).unwrap_or_default();
        if table.value("name").is_some() && !is_task(&name) {
            let problem = "a task is a word of at most 32 letters, digits, _ - and .";
            table.fault("name", problem, faults);
        }
        let tool = table.globs("tool", faults);
        table.finish(faults);
        all.push(ToolTask { name, tool });
    }
    all
}
