//! What a policy decides of a text, without a server: shared with `tieline route explain`.

use std::collections::BTreeSet;
use std::sync::Arc;

use tieline_router::choose::{Candidate, Decision, Try};
use tieline_router::policy::{BudgetScope, Policy};
use tieline_router::{Call, Hints, Setup, switch};
use tieline_types::{Message, Prompt, Request, Role, Tokens, Tool, Wanted};

use crate::app::App;
use crate::args::About;
use crate::commands::prices;
use crate::failure::{Failure, with_causes};
use crate::serving;
use crate::switching::{self, Place, Workshop};

/// What is decided of a text, and among whom.
pub(crate) struct Foreseen {
    pub(crate) setup: Setup,
    pub(crate) decision: Decision,
    /// All who may answer, those first whom the decision tries.
    pub(crate) everybody: Vec<Try>,
    /// Models whose keys cannot be read here: a server may have them.
    pub(crate) no_key: BTreeSet<String>,
    pub(crate) request: Request,
}

impl Foreseen {
    pub(crate) fn policy(&self) -> &Policy {
        &self.setup.policy
    }

    /// Those of these names whose keys cannot be read here.
    pub(crate) fn without_key<'n>(&self, names: &[&'n str]) -> Vec<&'n str> {
        names.iter().copied().filter(|name| self.no_key.contains(*name)).collect()
    }
}

/// What the policy decides about this text.
pub(crate) fn foresee(app: &App, about: &About, text: String) -> Result<Foreseen, Failure> {
    let (setup, left_out) = Workshop::new(app, None)?.setup(Place::of(app).policy()?)?;
    for failure in left_out {
        app.output.warn(&failure.message);
    }
    let (remotes, no_key) = remotes(app, &setup)?;
    let request = request(about, text);
    let call = call(app, about, &setup.policy)?;
    let learned = app.store.learned().map_err(|error| Failure::ours(with_causes(&error)))?;
    let local = (&serving::cards(app)?[..], &learned[..]);
    let switch::Preview { decision, everybody } =
        switch::preview(&setup, local, &remotes, (&call, &request))?;
    Ok(Foreseen { setup, decision, everybody, no_key, request })
}

/// Whom a server could ask, and the names of those whom this program cannot, for want of a key.
fn remotes(app: &App, setup: &Setup) -> Result<(Vec<Candidate>, BTreeSet<String>), Failure> {
    let policy = &setup.policy;
    let lacking: BTreeSet<&str> = policy
        .backends
        .iter()
        .filter(|(name, backend)| switching::lacks_key((name.as_str(), *backend)))
        .map(|(name, _)| name.as_str())
        .collect();
    let lacks = |name: &str| name.split_once('/').is_some_and(|(own, _)| lacking.contains(own));
    let all = switching::candidates(policy, &prices::with_policy(&app.store, policy)?);
    let all = all.into_iter().map(|(candidate, _)| candidate);
    let remotes: Vec<Candidate> =
        all.filter(|one| setup.remote(&one.name).is_some() || lacks(&one.name)).collect();
    let no_key = remotes.iter().map(|one| one.name.clone()).filter(|name| lacks(name)).collect();
    Ok((remotes, no_key))
}

fn request(about: &About, text: String) -> Request {
    let tool = |name: &String| Tool {
        name: name.clone(),
        description: String::new(),
        parameters: String::new(),
    };
    Request {
        max_tokens: about.max_tokens.map(Tokens),
        tools: about.tool.iter().map(tool).collect(),
        ..Request::new(Prompt::Chat(vec![Message::new(Role::User, text)]))
    }
}

fn call(app: &App, about: &About, policy: &Policy) -> Result<Call, Failure> {
    let caller = about.key.as_deref().map(|key| caller(app, key, policy)).transpose()?;
    let Caller { key, label, allowed } = caller.unwrap_or_default();
    let label_header = |label: &String| ("x-tieline-label".to_owned(), label.clone());
    Ok(Call {
        id: String::new(),
        key,
        label,
        allowed,
        dialect: "cli",
        operation: "chat",
        wanted: Wanted::named(&about.model),
        hints: Hints {
            data_class: about.class.map(|class| class.as_str().to_owned()),
            task: about.task.clone(),
            project: about.project.clone(),
            path: about.path.clone(),
            headers: about.label.iter().map(label_header).collect(),
            ..Hints::default()
        },
    })
}

/// Whose key asks.
#[derive(Default)]
struct Caller {
    key: String,
    label: Option<String>,
    allowed: Option<Arc<[String]>>,
}

/// A key of the store by its id or name, the one that is valid before others; else one that the policy names.
fn caller(app: &App, name: &str, policy: &Policy) -> Result<Caller, Failure> {
    let now = jiff::Timestamp::now().as_second();
    let mut keys = app.store.keys()?;
    keys.retain(|key| key.id == name || key.label == name);
    keys.sort_by_key(|key| !key.is_valid(now));
    if let Some(key) = keys.into_iter().next() {
        let (label, allowed) = (Some(key.label), key.models.map(Into::into));
        return Ok(Caller { key: key.id, label, allowed });
    }
    if names(policy, name) {
        return Ok(Caller { label: Some(name.to_owned()), ..Caller::default() });
    }
    Err(Failure::user(format!("neither this server nor the policy has a key {name:?}"))
        .with_hint("`tieline key list` shows the keys here"))
}

/// Whether a policy says something of this key.
fn names(policy: &Policy, key: &str) -> bool {
    let classify = policy.classify.iter().flat_map(|one| &one.key);
    let rules = policy.rules.iter().flat_map(|rule| &rule.keys);
    let budgets = policy.budgets.iter().filter_map(|budget| match &budget.scope {
        BudgetScope::Key(key) => Some(key),
        BudgetScope::Everything | BudgetScope::Project(_) => None,
    });
    classify.chain(rules).chain(budgets).any(|one| one == key)
}
