//! `tieline launch`: starts a tool so that it asks this server.
//!
//! The tool takes this program's place: nothing is left to watch. What it is told it is told by its own arguments
//! and environment; no file of the user's is changed.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tieline_router::choose::AUTO;

use crate::app::App;
use crate::args::{Launch, Tool};
use crate::failure::Failure;
use crate::switching::Place;

/// A server on this machine answers at once or not at all.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is sent where no key is needed: some tools refuse to start without one.
const NO_KEY: &str = "tieline";

/// How a tool is started.
#[derive(Debug, PartialEq, Serialize)]
struct Start {
    program: &'static str,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

pub(super) fn launch(app: &App, args: &Launch) -> Result<(), Failure> {
    let model = model(app, args)?;
    let base = format!("http://{}", args.server);
    let key = args.key.as_deref().unwrap_or(NO_KEY);
    if args.tool == Tool::Continue {
        return app.output.data(&continue_yaml(&base, key, &model));
    }
    let mut start = start(args.tool, &base, key, &model);
    start.arguments.extend(args.rest.iter().cloned());
    if args.print {
        return print(app, &start);
    }
    listening(args.server)?;
    Err(replace(&start))
}

/// The model named, which must be here or be a name of the policy's, or the only one. Where none is here, the policy
/// says who answers.
fn model(app: &App, args: &Launch) -> Result<String, Failure> {
    let policy = Place::of(app).policy()?;
    let mut models = app.store.list()?;
    models.retain(|model| !model.missing);
    let nobody = models.is_empty() && policy.backends.is_empty();
    match (&args.model, models.as_slice()) {
        (Some(name), _) if policy.concerns(name) && !(nobody && name == AUTO) => Ok(name.clone()),
        (Some(name), _) if name != AUTO => Ok(app.installed(name)?.name),
        (None, [one]) => Ok(one.name.clone()),
        (None, []) if !nobody => Ok(AUTO.to_owned()),
        (_, []) => Err(Failure::user("no model is here").with_hint("tieline pull smollm2")),
        _ => Err(Failure::user("several models are here: which one is the tool to use?")
            .with_hint("name it with --model, or leave it to the server with --model auto")),
    }
}

fn start(tool: Tool, base: &str, key: &str, model: &str) -> Start {
    let key = key.to_owned();
    match tool {
        Tool::Claude => Start {
            program: "claude",
            arguments: vec!["--model".to_owned(), model.to_owned()],
            environment: vec![
                ("ANTHROPIC_BASE_URL", base.to_owned()),
                ("ANTHROPIC_AUTH_TOKEN", key),
                ("ANTHROPIC_MODEL", model.to_owned()),
                // Its small tasks too, or they would ask for a model that is not here.
                ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model.to_owned()),
                ("ANTHROPIC_SMALL_FAST_MODEL", model.to_owned()),
                ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
            ],
        },
        Tool::Codex => {
            let provider = format!(
                r#"model_providers.tieline={{name="Tieline",base_url="{base}/v1",wire_api="responses",env_key="TIELINE_KEY"}}"#
            );
            // Its search runs at its vendor's, and its helpers are tools of a kind that is no function.
            let off = ["-c", "web_search=\"disabled\"", "-c", "features.multi_agent=false"];
            let words = ["-c", "model_provider=\"tieline\"", "-c", &provider, "-m", model];
            Start {
                program: "codex",
                arguments: words.into_iter().chain(off).map(str::to_owned).collect(),
                environment: vec![("TIELINE_KEY", key)],
            }
        }
        Tool::Opencode => {
            let config = json!({
                "provider": { "tieline": {
                    "npm": "@ai-sdk/openai-compatible",
                    "name": "Tieline",
                    "options": { "baseURL": format!("{base}/v1"), "apiKey": key },
                    "models": { model: {} },
                } },
                "model": format!("tieline/{model}"),
            });
            Start {
                program: "opencode",
                arguments: Vec::new(),
                environment: vec![("OPENCODE_CONFIG_CONTENT", config.to_string())],
            }
        }
        Tool::Aider | Tool::Continue => Start {
            program: "aider",
            arguments: vec!["--model".to_owned(), format!("openai/{model}")],
            environment: vec![("OPENAI_API_BASE", format!("{base}/v1")), ("OPENAI_API_KEY", key)],
        },
    }
}

/// What Continue wants in its `config.yaml`. JSON strings are good YAML.
fn continue_yaml(base: &str, key: &str, model: &str) -> String {
    let quoted = |text: &str| json!(text).to_string();
    format!(
        "# Put this into ~/.continue/config.yaml\n\
         name: Tieline\nversion: 0.0.1\nschema: v1\nmodels:\n  - name: {}\n    provider: openai\n    \
         model: {}\n    apiBase: {}\n    apiKey: {}\n    roles: [chat, edit, apply]\n",
        quoted(&format!("{model} (Tieline)")),
        quoted(model),
        quoted(&format!("{base}/v1")),
        quoted(key),
    )
}

/// Shows a start as a line for a shell, with the key that the user gave.
fn print(app: &App, start: &Start) -> Result<(), Failure> {
    if app.output.is_json() {
        return app.output.value(start);
    }
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let environment =
        start.environment.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
    let words = start.arguments.iter().map(|word| quoted(word));
    let line: Vec<String> = environment.chain([start.program.to_owned()]).chain(words).collect();
    app.output.line(&line.join(" "))
}

/// A tool that finds no server tells its user little.
fn listening(server: SocketAddr) -> Result<(), Failure> {
    TcpStream::connect_timeout(&server, PATIENCE).map(drop).map_err(|error| {
        Failure::user(format!("no server answers at {server}: {error}"))
            .with_hint("tieline serve starts one")
    })
}

/// Becomes the tool. Returns only where that fails.
#[cfg(unix)]
fn replace(start: &Start) -> Failure {
    use std::os::unix::process::CommandExt;
    let environment = start.environment.iter().map(|(name, value)| (*name, value));
    let error =
        std::process::Command::new(start.program).args(&start.arguments).envs(environment).exec();
    Failure::user(format!("cannot start {}: {error}", start.program))
        .with_hint("install it, or see what would be run with --print")
}

#[cfg(not(unix))]
fn replace(start: &Start) -> Failure {
    Failure::user(format!("cannot become {} on this system", start.program))
        .with_hint("--print shows what to run")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "http://127.0.0.1:11435";

    #[test]
    fn each_tool_is_told_where_and_what_to_ask() {
        for tool in [Tool::Claude, Tool::Codex, Tool::Opencode, Tool::Aider] {
            let start = start(tool, BASE, "k", "smollm2");
            let told = format!("{start:?}");
            assert!(told.contains(BASE) && told.contains("smollm2"), "{told}");
            let keys = start.environment.iter().any(|(_, value)| value.contains('k'));
            assert!(keys && !start.arguments.iter().any(|word| word == "k"), "{told}");
        }
    }

    /// What `make agents` starts the real tools with, and what is told here, are one text.
    #[test]
    fn what_the_real_tools_are_tried_with_is_what_they_are_told() {
        let claude = start(Tool::Claude, BASE, NO_KEY, "mock");
        let tried = include_str!("../../../../tests/clients/launch/claude.json");
        assert_eq!(serde_json::to_string_pretty(&claude).unwrap(), tried.trim_end());
        let tried = include_str!("../../../../tests/clients/launch/continue.yaml");
        assert_eq!(continue_yaml(BASE, NO_KEY, "mock"), tried);
    }

    #[test]
    fn what_continue_is_told_is_one_model() {
        let yaml = continue_yaml(BASE, "k", "a \"b\"");
        assert!(yaml.contains(r#"model: "a \"b\"""#), "{yaml}");
    }
}
