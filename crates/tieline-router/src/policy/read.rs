//! Reads a policy from its text.

use std::collections::BTreeMap;
use std::ops::Range;

use tieline_privacy::Entity;
use tieline_types::{DataClass, Zone};
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, PolicyError};
use super::read_models::{aliases, backends, is_whole_path, models, tasks, zones};
use super::table::{Table, hint, read_count};
use super::{
    Budget, BudgetScope, CachePolicy, Classify, Deadlines, Expected, HedgePolicy, Leaves,
    MachinePolicy, Policy, PolicyTest, Preferences, Rule, ToolTask, Treatment,
};
use crate::choose::{Asked, ConstraintKind, Needs};
use crate::prices::{PriceRow, PriceTier};

/// The longest policy, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Reads all but the digest.
pub(super) fn policy(text: &str) -> Result<Policy, PolicyError> {
    let mut faults = Faults::new(text);
    if text.len() > MAX_BYTES {
        faults.add(&(0..0), "", "a policy may have 1 MiB at most");
        return faults.finish(Policy::default());
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // The message alone: the error's own form repeats the line, which may hold a key.
        faults.add(&error.span().unwrap_or(0..0), "", error.message());
    }
    if !errors.is_empty() {
        return faults.finish(Policy::default());
    }
    let mut root = Table::root(table.get_ref());
    let policy = whole(&mut root, &mut faults);
    root.finish(&mut faults);
    faults.finish(policy)
}

fn classes() -> [(&'static str, DataClass); 4] {
    DataClass::ALL.map(|class| (class.as_str(), class))
}

fn whole(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Policy {
    let default = Policy::default();
    let licences = root.texts("licences", faults);
    let tasks = tasks(root, faults);
    Policy {
        digest: default.digest,
        backends: backends(root, faults),
        local: models("local", root, faults),
        aliases: aliases(root, faults),
        default_class: root
            .word("default_class", &classes(), faults)
            .unwrap_or(default.default_class),
        trust_declared: root.flag("trust_declared", faults).unwrap_or(false),
        terms: root.texts("terms", faults),
        git_identity: git_identity(root, faults),
        classify: classify(root, faults),
        rules: rules(root, faults),
        licences: (!licences.is_empty()).then_some(licences),
        deadlines: deadlines(root, faults),
        prices: prices(root, faults),
        budgets: budgets(root, faults),
        preferences: preferences(root, faults),
        offline: offline(root, faults),
        cache: cache(root, faults),
        hedge: hedge(root, faults),
        machine: machine(root, faults),
        tests: tests(root, &tasks, faults),
        tasks,
    }
}

/// `true`: the user's own files; a list: those of these projects too.
fn git_identity(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Option<Vec<String>> {
    const KEY: &str = "git_identity";
    if matches!(root.value(KEY)?.get_ref(), DeValue::Boolean(_)) {
        return root.flag(KEY, faults)?.then(Vec::new);
    }
    let projects = root.texts(KEY, faults);
    if !projects.iter().all(|path| is_whole_path(path)) {
        root.fault(KEY, "a project's folder is named by its whole path, or from ~/", faults);
    }
    Some(projects)
}

fn classify(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Vec<Classify> {
    const CONDITIONS: [&str; 5] = ["path", "key", "label", "project", "entity"];
    let mut all = Vec::new();
    for (number, mut table) in (1..).zip(root.rows("classify", faults)) {
        let class = table.word("class", &classes(), faults);
        let rule = Classify {
            name: table.text("name", faults).unwrap_or_else(|| format!("classify {number}")),
            class: class.unwrap_or(DataClass::Secret),
            path: table.globs("path", faults),
            key: table.texts("key", faults),
            label: table.texts("label", faults),
            project: table.globs("project", faults),
            entity: table.words("entity", &Entity::ALL.map(|one| (one.as_str(), one)), faults),
            at_least: table.count("at_least", faults).unwrap_or(1),
        };
        if table.value("class").is_none() {
            table.fault("", "the key \"class\" is missing", faults);
        }
        if CONDITIONS.iter().all(|key| table.value(key).is_none()) {
            let problem = "it says nothing that must hold: path, key, label, project or entity";
            table.fault("", problem, faults);
        }
        table.finish(faults);
        all.push(rule);
    }
    all
}

const TREATMENTS: [(&str, Treatment); 2] =
    [("as-is", Treatment::AsIs), ("redacted", Treatment::Redacted)];

fn rules(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Vec<Rule> {
    // Secret has no part in "any": it is named, or it stays.
    const ANY: &[DataClass] = &[DataClass::Public, DataClass::Internal, DataClass::Private];
    let mut words: Vec<(&'static str, &[DataClass])> = vec![("any", ANY)];
    let each: [&[DataClass]; 4] =
        [&[DataClass::Public], &[DataClass::Internal], &[DataClass::Private], &[DataClass::Secret]];
    words.extend(DataClass::ALL.iter().map(|class| class.as_str()).zip(each));
    let mut all: Vec<Rule> = Vec::new();
    for mut table in root.rows("rule", faults) {
        for key in ["name", "class", "zone", "as"] {
            if table.value(key).is_none() {
                table.fault("", format!("the key {key:?} is missing"), faults);
            }
        }
        let rule = Rule {
            name: table.text("name", faults).unwrap_or_default(),
            classes: table.words("class", &words, faults).concat(),
            zones: table.words("zone", &zones(), faults),
            to: table.globs("to", faults),
            keys: table.texts("key", faults),
            treatment: table.word("as", &TREATMENTS, faults).unwrap_or(Treatment::Redacted),
        };
        if rule.zones.contains(&Zone::Host) {
            table.fault(
                "zone",
                "what stays on this machine needs no rule: leave \"host\" out",
                faults,
            );
        }
        if all.iter().any(|other| other.name == rule.name && !rule.name.is_empty()) {
            table.fault("name", "another rule has this name, and ledgers know rules by it", faults);
        }
        table.finish(faults);
        all.push(rule);
    }
    all
}

fn deadlines(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Deadlines {
    let default = Deadlines::default();
    let Some(mut table) = root.table("deadlines", faults) else { return default };
    let total = table.time("total", faults).unwrap_or(default.total);
    let deadlines = Deadlines {
        connect: table.time("connect", faults).unwrap_or(default.connect),
        first_token: table.time("first_token", faults).unwrap_or(default.first_token.min(total)),
        idle: table.time("idle", faults).unwrap_or(default.idle),
        total,
    };
    for key in ["connect", "first_token", "idle", "total"] {
        if table.time(key, &mut Faults::new("")).is_some_and(|time| time.is_zero()) {
            table.fault(key, "no time at all is no deadline", faults);
        }
    }
    if deadlines.first_token > deadlines.total {
        table.fault("first_token", "it is later than the end, which is \"total\"", faults);
    }
    table.finish(faults);
    deadlines
}

fn budgets(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Vec<Budget> {
    let mut all: Vec<Budget> = Vec::new();
    for mut table in root.rows("budget", faults) {
        let key = table.text("key", faults);
        let project = table.text("project", faults);
        let scope = match (key, project) {
            (None, None) => BudgetScope::Everything,
            (Some(key), None) => BudgetScope::Key(key),
            (None, Some(project)) => BudgetScope::Project(project),
            (Some(_), Some(_)) => {
                table.fault("project", "a budget is for a key or for a project", faults);
                BudgetScope::Everything
            }
        };
        let budget =
            Budget { scope, day: table.money("day", faults), month: table.money("month", faults) };
        if table.value("day").is_none() && table.value("month").is_none() {
            table.fault("", "it says no amount: day or month", faults);
        }
        if all.iter().any(|other| other.scope == budget.scope) {
            table.fault("", "another budget is for the same", faults);
        }
        table.finish(faults);
        all.push(budget);
    }
    all
}

fn prices(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Vec<PriceRow> {
    let mut all = Vec::new();
    for mut table in root.rows("price", faults) {
        for key in ["vendor", "models", "input", "output"] {
            if table.value(key).is_none() {
                table.fault("", format!("the key {key:?} is missing"), faults);
            }
        }
        let row = PriceRow {
            vendor: table.text("vendor", faults).unwrap_or_default(),
            models: table.texts("models", faults),
            input: table.text("input", faults).unwrap_or_default(),
            cached_input: table.text("cached_input", faults),
            cache_write: table.text("cache_write", faults),
            output: table.text("output", faults).unwrap_or_default(),
            request: table.text("request", faults),
            known: table.text("known", faults),
            source: table.text("source", faults),
            above: table.table("above", faults).map(|above| price_above(above, faults)),
        };
        if !row.models.is_empty()
            && let Err(error) = row.check()
        {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
            table.fault("", format!("{error}{}", cause.unwrap_or_default()), faults);
        }
        table.finish(faults);
        all.push(row);
    }
    all
}

fn price_above(mut table: Table<'_>, faults: &mut Faults<'_>) -> PriceTier {
    let tier = PriceTier {
        prompt_tokens: table.count("prompt_tokens", faults).unwrap_or_default(),
        input: table.text("input", faults).unwrap_or_default(),
        cached_input: table.text("cached_input", faults),
        cache_write: table.text("cache_write", faults),
        output: table.text("output", faults).unwrap_or_default(),
    };
    table.finish(faults);
    tier
}

fn preferences(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Preferences {
    const WEIGHT: Range<f64> = 0.0..1e6;
    const MARGIN: Range<f64> = 0.0..1.0;
    let default = Preferences::default();
    let Some(mut table) = root.table("preferences", faults) else { return default };
    let mut number = |key, limits, default| table.number(key, limits, faults).unwrap_or(default);
    let mut preferences = Preferences {
        cost_per_usd: number("cost_per_usd", WEIGHT, default.cost_per_usd),
        deadline: number("deadline", WEIGHT, default.deadline),
        wait_per_s: number("wait_per_s", WEIGHT, default.wait_per_s),
        switch: number("switch", WEIGHT, default.switch),
        energy_per_kj: number("energy_per_kj", WEIGHT, default.energy_per_kj),
        margin: number("margin", MARGIN, default.margin),
        cascade_margin: number("cascade_margin", MARGIN, default.cascade_margin),
        fallbacks: default.fallbacks,
    };
    preferences.fallbacks = table.count("fallbacks", faults).unwrap_or(default.fallbacks);
    table.finish(faults);
    preferences
}

fn offline(root: &mut Table<'_>, faults: &mut Faults<'_>) -> Option<Zone> {
    let mut table = root.table("offline", faults)?;
    let enabled = table.flag("enabled", faults).unwrap_or(true);
    let farthest = table.word("farthest", &zones(), faults).unwrap_or(Zone::Host);
    table.finish(faults);
    enabled.then_some(farthest)
}

fn cache(root: &mut Table<'_>, faults: &mut Faults<'_>) -> CachePolicy {
    let Some(mut table) = root.table("cache", faults) else { return CachePolicy::default() };
    let classes = match table.value("class") {
        Some(_) => table.words("class", &classes(), faults),
        None => CachePolicy::default().classes,
    };
    let cache = CachePolicy {
        exact: table.flag("exact", faults).unwrap_or(false),
        keep: table.time("keep", faults),
        classes,
    };
    table.finish(faults);
    cache
}

fn hedge(root: &mut Table<'_>, faults: &mut Faults<'_>) -> HedgePolicy {
    let Some(mut table) = root.table("hedge", faults) else { return HedgePolicy::default() };
    let hedge = HedgePolicy {
        day: table.money("day", faults).unwrap_or_default(),
        after: table.time("after", faults),
    };
    if table.value("day").is_none() {
        table.fault("", "it says no amount: day", faults);
    }
    table.finish(faults);
    hedge
}

/// The thousandths of a number from 0 to a million.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a thousand million fits"
)]
fn milli(number: f64) -> u32 {
    (number * 1000.0).round() as u32
}

fn machine(root: &mut Table<'_>, faults: &mut Faults<'_>) -> MachinePolicy {
    const WATTS: Range<f64> = 0.0..1e6;
    const HOURS: Range<u32> = 1..1_000_001;
    let Some(mut table) = root.table("machine", faults) else { return MachinePolicy::default() };
    let tariff_per_kwh = table.money("tariff", faults);
    let milliwatts = table.number("watts", WATTS, faults).map(milli);
    let (price, hours) = (table.money("hardware", faults), table.count("life", faults));
    if table.value("watts").is_some() && table.value("tariff").is_none() {
        table.fault("watts", "what it draws says nothing without a tariff", faults);
    }
    if table.value("hardware").is_some() != table.value("life").is_some() {
        let problem =
            "hardware and life go together: what it cost, and for how many hours of answering";
        table.fault("", problem, faults);
    }
    if hours.is_some_and(|hours| !HOURS.contains(&hours)) {
        table.fault("life", "expected from 1 to 1000000 hours", faults);
    }
    table.finish(faults);
    MachinePolicy { tariff_per_kwh, milliwatts, hardware: price.zip(hours) }
}

fn tests(root: &mut Table<'_>, tasks: &[ToolTask], faults: &mut Faults<'_>) -> Vec<PolicyTest> {
    let mut all = Vec::new();
    for (number, mut table) in (1..).zip(root.rows("test", faults)) {
        let name = table.text("name", faults).unwrap_or_else(|| format!("test {number}"));
        let asked = table.table("request", faults).map(|request| asked(request, tasks, faults));
        let expected = table.table("expect", faults).map(|expect| expected(expect, faults));
        for key in ["request", "expect"] {
            if table.value(key).is_none() {
                table.fault("", format!("the key {key:?} is missing"), faults);
            }
        }
        table.finish(faults);
        if let (Some(asked), Some(expected)) = (asked, expected) {
            all.push(PolicyTest { name, asked, expected });
        }
    }
    all
}

fn asked(mut table: Table<'_>, tasks: &[ToolTask], faults: &mut Faults<'_>) -> Asked {
    const CONSTRAINTS: [(&str, ConstraintKind); 3] = [
        ("json_object", ConstraintKind::JsonObject),
        ("json_schema", ConstraintKind::JsonSchema),
        ("grammar", ConstraintKind::Grammar),
    ];
    let millis = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let offered = table.texts("tool", faults);
    let by_tool = ToolTask::find(tasks, &offered.iter().map(String::as_str)).map(str::to_owned);
    let tools = table.flag("tools", faults).unwrap_or(!offered.is_empty());
    let asked = Asked {
        asked: table.text("model", faults).unwrap_or_else(|| crate::choose::AUTO.to_owned()),
        key: table.text("key", faults).unwrap_or_default(),
        key_label: table.text("key_label", faults),
        project: table.text("project", faults),
        path: table.text("path", faults),
        declared_class: table.word("class", &classes(), faults),
        labels: table.texts("label", faults),
        found: entities(&mut table, faults),
        prompt_tokens: table.tokens("prompt_tokens", faults).unwrap_or_default(),
        max_tokens: table.tokens("max_tokens", faults),
        needs: Needs {
            tools,
            vision: table.flag("vision", faults).unwrap_or(false),
            constraint: table.word("constraint", &CONSTRAINTS, faults),
            logprobs: table.flag("logprobs", faults).unwrap_or(false),
            deterministic: table.flag("deterministic", faults).unwrap_or(false),
            vectors: table.flag("embeddings", faults).unwrap_or(false),
            scores: table.flag("rerank", faults).unwrap_or(false),
            ..Needs::default()
        },
        task: table.text("task", faults),
        by_tool,
        first_token_ms: table.time("first_token", faults).map(millis),
        total_ms: table.time("total", faults).map(millis),
        offline: table.flag("offline", faults).unwrap_or(false),
        ..Asked::default()
    };
    table.finish(faults);
    asked
}

/// A table of what was found and how often, or a list of what was found once.
fn entities(table: &mut Table<'_>, faults: &mut Faults<'_>) -> BTreeMap<Entity, u32> {
    let words = Entity::ALL.map(|one| (one.as_str(), one));
    let Some(value) = table.value("entities") else { return BTreeMap::new() };
    if !matches!(value.get_ref(), DeValue::Table(_)) {
        return table.words("entities", &words, faults).into_iter().map(|one| (one, 1)).collect();
    }
    let mut all = BTreeMap::new();
    let Some(counts) = table.table("entities", faults) else { return all };
    for (name, value) in counts.entries() {
        let count = read_count(value, "entities", faults);
        match words.iter().find(|(word, _)| *word == name) {
            Some((_, entity)) => all.extend(count.map(|count| (*entity, count))),
            None => {
                let known = words.iter().map(|(word, _)| *word).collect();
                let problem = format!("there is no entity {name:?}{}", hint(name, &known));
                faults.add(&value.span(), "entities", problem);
            }
        }
    }
    all
}

const LEAVES: [Leaves; 3] = [Leaves::Nothing, Leaves::Redacted, Leaves::AsIs];

fn expected(mut table: Table<'_>, faults: &mut Faults<'_>) -> Expected {
    let mut first = table.globs("first", faults);
    let expected = Expected {
        first: first.pop(),
        refused: table.flag("refused", faults),
        class: table.word("class", &classes(), faults),
        farthest: table.word("farthest", &zones(), faults),
        leaves: table.word("leaves", &LEAVES.map(|most| (most.as_str(), most)), faults),
        treatment: table.word("as", &TREATMENTS, faults),
        rule: table.text("rule", faults),
        task: table.text("task", faults),
    };
    if !first.is_empty() {
        table.fault("first", "one name or pattern", faults);
    }
    if expected == Expected::default() {
        table.fault("", "it expects nothing", faults);
    }
    table.finish(faults);
    expected
}
