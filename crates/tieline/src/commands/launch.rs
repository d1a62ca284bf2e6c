//! `tieline launch`: starts a tool so that it asks this server.
//!
//! The tool takes this program's place: nothing is left to watch. What it is told it is told by its own arguments
//! and environment; no file of the user's is changed.

use std::io::{self, Read, Write};
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

/// Where a server of this machine listens unless told otherwise.
const USUAL: ([u8; 4], u16) = ([127, 0, 0, 1], 11435);

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

/// The model named, which must be what the server answers to, or the only one. Where none is here, the policy says who
/// answers.
fn model(app: &App, args: &Launch) -> Result<String, Failure> {
    let policy = Place::of(app).policy()?;
    let mut models = app.store.list()?;
    models.retain(|model| !model.missing && !model.is_adapter);
    let nobody = models.is_empty() && policy.backends.is_empty();
    match (&args.model, models.as_slice()) {
        (Some(name), _) if policy.concerns(name) && !(nobody && name == AUTO) => Ok(name.clone()),
        (Some(name), _) if name != AUTO => named(app, args, name),
        (None, [one]) => Ok(one.name.clone()),
        (None, []) if !nobody => Ok(AUTO.to_owned()),
        (_, []) => Err(Failure::user("no model is here").with_hint("tieline pull smollm2")),
        _ => Err(Failure::user("several models are here: which one is the tool to use?")
            .with_hint("name it with --model, or leave it to the server with --model auto")),
    }
}

/// A model that is here by its own name; another name where the server answers to it.
fn named(app: &App, args: &Launch, name: &str) -> Result<String, Failure> {
    let bare = name.strip_suffix(":latest").unwrap_or(name).to_ascii_lowercase();
    if app.store.overlay(&bare)?.is_some() {
        return Ok(name.to_owned());
    }
    let unknown = match app.installed(name) {
        Ok(model) => return Ok(model.name),
        Err(unknown) => unknown,
    };
    // What is only shown asks nobody: what another server answers to is not known then.
    match (args.print, args.server == SocketAddr::from(USUAL)) {
        (true, true) => Err(unknown),
        (true, false) => Ok(name.to_owned()),
        (false, _) => answered(args, name).map(|()| name.to_owned()),
    }
}

/// Asks the server whether it answers to this name.
fn answered(args: &Launch, name: &str) -> Result<(), Failure> {
    listening(args.server)?;
    let server = args.server;
    match status(server, args.key.as_deref().unwrap_or(NO_KEY), name) {
        Ok(200) => Ok(()),
        Ok(401 | 403) => Err(Failure::user(format!("the server at {server} wants a key"))
            .with_hint("give one with --key")),
        Ok(404) => Err(Failure::user(format!("the server at {server} answers to no model {name}"))
            .with_hint(format!("http://{server}/v1/models lists what it answers to"))),
        Ok(status) => {
            let text = format!("the server at {server} answers {status} when asked for {name}");
            Err(Failure::user(text))
        }
        Err(error) => {
            let text = format!("cannot ask the server at {server} for {name}: {error}");
            Err(Failure::user(text))
        }
    }
}

/// The status of the answer to `GET /v1/models/NAME`.
fn status(server: SocketAddr, key: &str, name: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let path: String = name.bytes().map(written).collect();
    // Of a key no line break is sent: it would be another header.
    let key: String = key.chars().filter(char::is_ascii_graphic).collect();
    let request = format!(
        "GET /v1/models/{path} HTTP/1.1\r\nhost: {server}\r\nauthorization: Bearer {key}\r\n\
         connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    // `HTTP/1.1 200`
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let digits = std::str::from_utf8(&line[9..]).ok().filter(|_| line.starts_with(b"HTTP/1."));
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "it does not speak HTTP");
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(foreign)
}

/// A letter of a name as a path has it.
fn written(byte: u8) -> String {
    match byte {
        b'-' | b'.' | b'_' | b'~' | b'/' | b':' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
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
                // The user's own key for its vendor is not for us.
                ("ANTHROPIC_API_KEY", String::new()),
                ("ANTHROPIC_MODEL", model.to_owned()),
                // Its small tasks and its helpers too, or they would ask for a model that is not here.
                ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model.to_owned()),
                ("ANTHROPIC_DEFAULT_SONNET_MODEL", model.to_owned()),
                ("ANTHROPIC_DEFAULT_OPUS_MODEL", model.to_owned()),
                ("ANTHROPIC_SMALL_FAST_MODEL", model.to_owned()),
                ("CLAUDE_CODE_SUBAGENT_MODEL", model.to_owned()),
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
    fn claude_asks_one_model_with_one_key_whatever_is_in_the_shell() {
        let claude = start(Tool::Claude, BASE, "k", "smollm2").environment;
        let told = |name: &str| claude.iter().find(|(one, _)| *one == name).map(|(_, value)| value);
        assert_eq!(told("ANTHROPIC_API_KEY").map(String::as_str), Some(""));
        for kind in ["HAIKU", "SONNET", "OPUS"] {
            let name = format!("ANTHROPIC_DEFAULT_{kind}_MODEL");
            assert_eq!(told(&name).map(String::as_str), Some("smollm2"), "{name}");
        }
        assert_eq!(told("CLAUDE_CODE_SUBAGENT_MODEL").map(String::as_str), Some("smollm2"));
    }

    #[test]
    fn a_server_is_asked_for_a_name_and_for_nothing_else() {
        for (line, want) in
            [("HTTP/1.1 200 OK", Some(200)), ("HTTP/1.1 404 Not Found", Some(404)), ("SSH", None)]
        {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let asked = std::thread::scope(|scope| {
                let answers = scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        head.extend(byte);
                    }
                    stream.write_all(format!("{line}\r\n\r\n").as_bytes()).unwrap();
                    String::from_utf8(head).unwrap()
                });
                assert_eq!(status(address, "k\r\nx: y", "cloud/big a").ok(), want, "{line}");
                answers.join().unwrap()
            });
            let head = format!(
                "GET /v1/models/cloud/big%20a HTTP/1.1\r\nhost: {address}\r\n\
                 authorization: Bearer kx:y\r\nconnection: close\r\n\r\n"
            );
            assert_eq!(asked, head);
        }
    }

    #[test]
    fn what_continue_is_told_is_one_model() {
        let yaml = continue_yaml(BASE, "k", "a \"b\"");
        assert!(yaml.contains(r#"model: "a \"b\"""#), "{yaml}");
    }
}
