//! Made models at the terminal: what somebody put before a model, where the command does not say it itself.

use serde::Serialize;
use serde_json::{Map, Value};
use tieline_server::Before;
use tieline_store::Overlay;
use tieline_types::{ModelRef, Private, Sampling};

use crate::app::App;
use crate::args::Run;
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
    /// Messages at the beginning of its conversations.
    pub(super) messages: usize,
    /// All of it, as the server reads it.
    #[serde(skip)]
    before: Before,
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
        let name = overlay.name.clone();
        let broken = |text: String| Failure::ours(text).with_hint(format!("make {name:?} again"));
        let before = tieline_server::before(&overlay, Sampling::default());
        let before = before.map_err(|error| broken(error.to_string()))?;
        let parameters = serde_json::from_str(&overlay.parameters).map_err(|error| {
            broken(format!("what is kept of model {name:?} cannot be read: {error}"))
        })?;
        Ok(Self {
            parameters,
            base: overlay.base.strip_suffix(":latest").unwrap_or(&overlay.base).to_owned(),
            messages: before.messages.len(),
            before,
            system: overlay.system,
            name: overlay.name,
        })
    }

    /// The command as if its user had typed what the model was made with and he left out.
    pub(super) fn fill(self, args: &Run) -> Run {
        let Before { system, messages, sampling, context, max_tokens, stop } = self.before;
        let mut args = args.clone();
        args.model = self.base;
        if !args.raw {
            args.system = args.system.or(system.map(Private::into_inner));
            args.said = messages;
        }
        args.usual = sampling;
        args.load.ctx = args.load.ctx.or(context.map(|tokens| tokens.0));
        args.sampling.max_tokens = args.sampling.max_tokens.or(max_tokens.map(|tokens| tokens.0));
        if args.sampling.stop.is_empty() {
            args.sampling.stop = stop;
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tieline_types::{Request, Tokens};

    use super::super::turn::template;
    use super::*;
    use crate::args::{Args, Command};

    const PARAMETERS: &str = r#"{"temperature":0.3,"seed":-7,"repeat_last_n":-1,"top_k":-1,
        "num_ctx":4096,"num_predict":9,"stop":["END"]}"#;
    const MESSAGES: &str = r#"[{"role":"user","content":"Rain?"},
        {"role":"assistant","content":"","thinking":"I look.",
         "tool_calls":[{"function":{"name":"look","arguments":{"at":"sky"}}}]},
        {"role":"tool","tool_name":"look","content":"blue"}]"#;

    fn filled(flags: &[&str]) -> (Run, Request) {
        let overlay = Overlay {
            name: "made".to_owned(),
            base: "m:latest".to_owned(),
            system: None,
            template: None,
            licence: None,
            parameters: PARAMETERS.to_owned(),
            messages: MESSAGES.to_owned().into(),
            changed_at_unix_s: 1,
        };
        let args = Args::try_parse_from(["tieline", "run", "made", "Hi"].iter().chain(flags));
        let Command::Run(args) = args.unwrap().command else { panic!("another command") };
        let run = Made::of(overlay).unwrap().fill(&args);
        let request = template(&run).unwrap();
        (run, request)
    }

    #[test]
    fn everything_that_it_was_made_with_is_asked_for() {
        let (run, request) = filled(&[]);
        assert_eq!((run.model.as_str(), run.load.ctx), ("m", Some(4096)));
        let sampling = request.sampling;
        assert_eq!((sampling.temperature, sampling.top_k), (0.3, 0));
        assert_eq!(
            (sampling.seed, sampling.penalty_window),
            (Some(u32::MAX - 7), Tokens(1_000_000))
        );
        assert_eq!((request.max_tokens, request.stop), (Some(Tokens(9)), vec!["END".to_owned()]));
        let call = &run.said[1];
        assert_eq!(call.reasoning.as_ref().unwrap().expose(), "I look.");
        assert_eq!((call.tool_calls[0].name.as_str(), run.said.len()), ("look", 3));
        assert_eq!(run.said[2].tool_call_id, Some(call.tool_calls[0].id.clone()));
    }

    #[test]
    fn what_is_typed_stands_above_it() {
        let flags = ["--greedy", "--seed", "3", "--top-k", "5", "-n", "2", "--stop", "X", "--raw"];
        let (run, request) = filled(&flags);
        assert_eq!((request.sampling.temperature, request.sampling.seed), (0.0, Some(3)));
        assert_eq!((request.sampling.top_k, request.max_tokens), (5, Some(Tokens(2))));
        assert_eq!((request.stop, run.said.len()), (vec!["X".to_owned()], 0));
    }
}
