//! Made models at the terminal: what somebody put before a model, where the command does not say it itself.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tieline_store::Overlay;
use tieline_types::{Message, ModelRef, Private, Role};

use crate::app::App;
use crate::args::{Run, Sampling};
use crate::failure::Failure;

/// What was put before a model, for programs.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    /// What is asked for.
    pub(super) name: String,
    /// The model that answers.
    pub(super) base: String,
    pub(super) system: Option<Private>,
    pub(super) parameters: Map<String, Value>,
    #[serde(skip)]
    said: Vec<Said>,
    /// Messages at the beginning of its conversations.
    pub(super) messages: usize,
}

#[derive(Debug, Deserialize)]
struct Said {
    role: Role,
    #[serde(default)]
    content: Private,
}

impl Made {
    /// The made model of this name; `None`: it is a model itself, with nothing before it.
    ///
    /// # Errors
    /// What is kept of it cannot be read.
    pub(super) fn find(app: &App, text: &str) -> Result<Option<Self>, Failure> {
        let bare = text.strip_suffix(":latest").unwrap_or(text);
        let Ok(ModelRef::Name(name)) = bare.parse() else { return Ok(None) };
        app.store.overlay(&name)?.map(Self::of).transpose()
    }

    fn of(overlay: Overlay) -> Result<Self, Failure> {
        let broken = |error: serde_json::Error| {
            let text = format!("what is kept of model {:?} cannot be read: {error}", overlay.name);
            Failure::ours(text).with_hint(format!("make {:?} again", overlay.name))
        };
        let said: Vec<Said> = serde_json::from_str(overlay.messages.expose()).map_err(broken)?;
        let base = overlay.base.strip_suffix(":latest").unwrap_or(&overlay.base);
        Ok(Self {
            parameters: serde_json::from_str(&overlay.parameters).map_err(broken)?,
            base: base.to_owned(),
            messages: said.len(),
            said,
            system: overlay.system,
            name: overlay.name,
        })
    }

    /// The command as if its user had typed what the model was made with and he left out.
    pub(super) fn fill(self, args: &Run) -> Run {
        let mut args = args.clone();
        args.model = self.base;
        if !args.raw {
            let own = self.system.map(Private::into_inner);
            args.system = args.system.or(own);
            args.said =
                self.said.into_iter().map(|one| Message::new(one.role, one.content)).collect();
        }
        let number = |name: &str| self.parameters.get(name).and_then(Value::as_f64);
        if args.load.ctx.is_none() {
            args.load.ctx = number("num_ctx").and_then(whole);
        }
        fill_sampling(&mut args.sampling, &self.parameters);
        args
    }
}

/// Numbers of the server's checks: they were in range when the model was made.
fn fill_sampling(sampling: &mut Sampling, parameters: &Map<String, Value>) {
    let number = |name: &str| parameters.get(name).and_then(Value::as_f64);
    #[expect(clippy::cast_possible_truncation, reason = "f32 is what a model takes")]
    let real = |own: Option<f32>, name: &str| own.or_else(|| number(name).map(|n| n as f32));
    if !sampling.greedy {
        sampling.temperature = real(sampling.temperature, "temperature");
    }
    sampling.top_p = real(sampling.top_p, "top_p");
    sampling.min_p = real(sampling.min_p, "min_p");
    sampling.repeat_penalty = real(sampling.repeat_penalty, "repeat_penalty");
    sampling.presence_penalty = real(sampling.presence_penalty, "presence_penalty");
    sampling.frequency_penalty = real(sampling.frequency_penalty, "frequency_penalty");
    let count = |name: &str| number(name).and_then(whole);
    sampling.top_k = sampling.top_k.or_else(|| number("top_k").and_then(|n| whole(n.max(0.0))));
    sampling.seed = sampling.seed.or_else(|| count("seed"));
    sampling.max_tokens = sampling.max_tokens.or_else(|| count("num_predict"));
    if sampling.stop.is_empty() {
        sampling.stop = match parameters.get("stop") {
            Some(Value::String(one)) => vec![one.clone()],
            Some(Value::Array(all)) => {
                all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
    }
}

/// A count; what is below zero means that none is set.
fn whole(number: f64) -> Option<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "its range is checked"
    )]
    (0.0..f64::from(u32::MAX)).contains(&number).then_some(number as u32)
}
