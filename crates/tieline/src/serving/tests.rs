#[cfg(unix)]
mod devices;
mod drafts;
mod eviction;

use std::future::poll_fn;
use std::path::Path;

use tempfile::TempDir;
use testkit::Shape;
use tieline_store::gguf::write::Draft;
use tieline_types::wire::Work;
use tieline_types::{
    Asker, Constraint, ErrorKind, Event, Finished, Hint, HostStatus, Message, ModelRef, Pooling,
    Prompt, Request, Role, Sampling, Wanted,
};
use tokio::time::{Instant, sleep};

use super::*;
use crate::args::Global;
use crate::output::Output;
use crate::sessions;

fn app_in(folder: &TempDir, runner: Option<&Path>) -> App {
    app_by(folder, runner, None)
}

fn app_by(folder: &TempDir, runner: Option<&Path>, jail: Option<args::Jail>) -> App {
    let global = Global {
        json: false,
        quiet: true,
        home: Some(folder.path().join("home")),
        runner: runner.map(Path::to_owned),
        gpu: crate::runner::Gpu::Auto,
        offline: true,
        policy: None,
        jail,
    };
    App::new(global, Output::new(false, true)).unwrap()
}

/// An app with a home of its own.
fn app(runner: &Path) -> (App, TempDir) {
    let folder = TempDir::new().unwrap();
    (app_in(&folder, Some(runner)), folder)
}

/// One that starts its runners from builds: the runner as it is, and with another hash.
fn app_with_builds(runner: &Path) -> (App, TempDir) {
    let folder = TempDir::new().unwrap();
    let app = app_in(&folder, None);
    let mut bytes = std::fs::read(runner).unwrap();
    for name in ["a", "b"] {
        let path = folder.path().join(name);
        std::fs::write(&path, &bytes).unwrap();
        // What stands after an ELF file's end is not read.
        bytes.push(0);
        let staged = app.store.engines().stage(&path).unwrap();
        let said = app.block_on(tieline_engine::inspect(runner)).unwrap().build;
        let facts = tieline_store::BuildFacts {
            runner: said.version,
            llama_cpp: said.llama_cpp,
            wire: tieline_types::wire::VERSION,
            kernels: Vec::new(),
            devices: Vec::new(),
        };
        staged.keep(Some(name.to_owned()), (facts, String::new())).unwrap();
    }
    app.store.engines().switch("a", None).unwrap();
    (app, folder)
}

/// Without a runner that could load anything.
fn app_without_runner() -> (App, TempDir) {
    app(&std::env::current_exe().unwrap())
}

fn pull(app: &App, path: &Path, name: &str) {
    app.pull(&ModelRef::File(path.to_owned()), Some(name.to_owned()), None).unwrap();
}

fn pull_made(app: &App, folder: &TempDir, name: &str, bytes: &[u8]) {
    let path = folder.path().join(format!("{name}.gguf"));
    std::fs::write(&path, bytes).unwrap();
    pull(app, &path, name);
}

/// One thread a model: tests run beside each other.
fn settings(context: u32) -> Settings {
    let params = LoadParams {
        context: Some(Tokens(context)),
        threads: Some(1),
        parallel: 2,
        ..LoadParams::default()
    };
    Settings {
        params,
        memory: None,
        prompts: Some(Quota::Off),
        drafts: Arc::default(),
        keep: Keep::For(KEEP),
        wait: Duration::from_secs(60),
    }
}

/// How an answer ends.
async fn end(host: &dyn Host, wanted: &Wanted, request: Request) -> Finished {
    let mut stream = host.run(wanted, request).await.unwrap();
    loop {
        let event = poll_fn(|context| stream.as_mut().poll_next(context)).await.unwrap();
        if let Event::Finished(finished) = event.unwrap() {
            return *finished;
        }
    }
}

async fn text(host: &dyn Host, wanted: &Wanted, mut request: Request) -> String {
    request.sampling = Sampling::greedy();
    request.max_tokens = Some(Tokens(48));
    let mut stream = host.run(wanted, request).await.unwrap();
    let mut text = String::new();
    while let Some(event) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        if let Event::Piece(piece) = event.unwrap() {
            text += piece.text.expose();
        }
    }
    text
}

/// Waits until what is in memory is as it should be; fails after half a minute.
async fn until(host: &dyn Host, hope: impl Fn(&HostStatus) -> bool) -> HostStatus {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = host.status().await.unwrap();
        if hope(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "it never happened: {status:?}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn in_memory(status: &HostStatus) -> Vec<(&str, u32)> {
    let context = |served: &tieline_types::Served| served.loaded.context.0;
    let models = status.models.iter();
    models.map(|one| (one.name.as_str(), one.served.as_deref().map_or(0, context))).collect()
}

#[test]
fn what_models_are_is_told_by_all_their_names() {
    let (app, folder) = app_without_runner();
    pull_made(&app, &folder, "sample", &Draft::sample(1280).bytes());
    pull(&app, &testkit::shape(Shape::Bert), "bert:latest");
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let cards = host.models().await.unwrap();
        let names: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
        assert_eq!(names, ["bert:latest", "sample"]);
        assert!(cards[0].abilities.embedding && !cards[0].abilities.completion);
        assert_eq!(cards[0].embedding_length, Some(64));
        assert!(cards[1].abilities.chat && cards[1].embedding_length.is_none());
        let details = host.describe("Sample:latest").await.unwrap();
        assert_eq!(details.template.as_deref(), Some("{{ messages }}"));
        assert_eq!(details.card, cards[1]);
        let entry = |key: &str| details.metadata.iter().find(|(name, _)| name == key);
        assert_eq!(entry("general.name").unwrap().1, r#""Sample""#);
        assert_eq!(entry("llama.context_length").unwrap().1, "2048");
        assert!(entry("tokenizer.chat_template").is_none());
        assert_eq!(host.describe("bert").await.unwrap().card, cards[0]);
        handle.shutdown().await;
    });
}

#[test]
fn a_name_of_no_model_is_not_found_by_any_method() {
    let (app, folder) = app_without_runner();
    pull_made(&app, &folder, "sample", &Draft::sample(1280).bytes());
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let words = Work::Detokenize { tokens: vec![1], special: false };
        for (name, hint) in [
            ("sampel", "did you mean sample?"),
            ("smollm2", "tieline pull smollm2"),
            ("../../etc/passwd", "tieline list shows the models here; tieline pull fetches one"),
        ] {
            let wanted = Wanted::named(name);
            let errors = [
                host.describe(name).await.unwrap_err(),
                host.ready(&wanted).await.unwrap_err(),
                host.run(&wanted, Request::new(Prompt::Text("x".into()))).await.err().unwrap(),
                host.work(&wanted, words.clone()).await.unwrap_err(),
                host.unload(name).await.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind, ErrorKind::NotFound, "{error}");
                assert_eq!(error.hint().as_deref(), Some(hint));
            }
        }
        // One that is here and not in memory need not leave it.
        host.unload("sample").await.unwrap();
        assert_eq!(host.status().await.unwrap().models, []);
        handle.shutdown().await;
    });
}

#[test]
fn a_context_beyond_what_a_model_was_trained_for_is_the_longest_that_it_was() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, &testkit::shape(Shape::Llama), "llama");
    pull(&app, &testkit::shape(Shape::Bert), "bert");
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let far = |name| Wanted { context: Some(Tokens(1_000_000)), ..Wanted::named(name) };
        let served = host.ready(&far("llama")).await.unwrap();
        assert_eq!(served.loaded.context, Tokens(testkit::CONTEXT));
        let vectors = Wanted { vectors: Some(Pooling::Model), ..far("bert") };
        let served = host.ready(&vectors).await.unwrap();
        assert_eq!(served.loaded.context, Tokens(testkit::ENCODER_CONTEXT));
        handle.shutdown().await;
    });
}

/// A model's file without the entries of these words.
fn without(words: &[&str]) -> Vec<u8> {
    let mut draft = Draft::sample(1280);
    draft.metadata.retain(|(key, _)| !words.iter().any(|word| key.contains(word)));
    draft.bytes()
}

#[test]
fn what_a_model_can_never_answer_is_known_before_it_is_loaded() {
    let (app, folder) = app_without_runner();
    pull_made(&app, &folder, "bare", &without(&["template"]));
    pull(&app, &testkit::shape(Shape::Bert), "bert");
    let chat = || Request::new(Prompt::Chat(vec![Message::new(Role::User, "x")]));
    let raw = || Request::new(Prompt::Text("x".into()));
    let schema = format!("{}{{}}{}", "{\"items\":".repeat(70), "}".repeat(70));
    let deep = Request { constraint: Some(Constraint::JsonSchema(schema)), ..raw() };
    let hot = Request { sampling: Sampling { temperature: 9.0, ..Sampling::default() }, ..raw() };
    let long = Wanted { context: Some(Tokens(4096)), ..Wanted::named("bare") };
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        host.check(&Wanted::named("bare"), &raw()).await.unwrap();
        host.check(&long, &raw()).await.unwrap();
        for (wanted, request, kind, words) in [
            (Wanted::named("bare"), chat(), ErrorKind::Unsupported, "no chat template"),
            (Wanted::named("bert"), chat(), ErrorKind::Unsupported, "writes no text"),
            (Wanted::named("bert"), raw(), ErrorKind::Unsupported, "writes no text"),
            (Wanted::named("nobody"), raw(), ErrorKind::NotFound, "nobody"),
            (Wanted::named("bare+nobody"), raw(), ErrorKind::NotFound, "nobody"),
            (Wanted::named("bare"), deep, ErrorKind::InvalidRequest, "nested 71 deep"),
            (Wanted::named("bare"), hot, ErrorKind::InvalidRequest, "temperature"),
        ] {
            let error = host.check(&wanted, &request).await.unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        handle.shutdown().await;
    });
}

#[test]
fn a_plan_is_of_the_build_that_loads() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app_with_builds(&runner);
    pull(&app, testkit::smollm2(), "smollm2");
    app.block_on(async {
        let (_, handle) = start(&app, settings(512), app.engine().unwrap());
        let machine = Arc::clone(&handle.machine);
        let wanted = Wanted::named("smollm2");
        machine.ready(&wanted).await.unwrap();
        let digest = app.store.list().unwrap()[0].digest;
        let variant = || machine.variants.of(digest).remove(0);
        let first = variant().need().unwrap();
        machine.ready(&wanted).await.unwrap();
        assert!(Arc::ptr_eq(&first, &variant().need().unwrap()), "planned once");
        app.store.engines().switch("b", None).unwrap();
        // What is in memory was loaded by the old plan.
        machine.ready(&wanted).await.unwrap();
        assert!(Arc::ptr_eq(&first, &variant().need().unwrap()));
        machine.unload("smollm2").await.unwrap();
        while variant().place() != variants::Place::Away {
            sleep(Duration::from_millis(5)).await;
        }
        machine.ready(&wanted).await.unwrap();
        let second = variant().need().unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "the new build plans for itself");
        let members = machine.status().await.unwrap().models;
        assert_eq!(members.len(), 1, "{members:?}");
        handle.shutdown().await;
    });
}

#[test]
fn a_build_that_is_switched_to_on_the_way_plans_and_is_known_as_that() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app_with_builds(&runner);
    pull(&app, testkit::smollm2(), "smollm2");
    app.block_on(async {
        let (_, handle) = start(&app, settings(512), app.engine().unwrap());
        let machine = Arc::clone(&handle.machine);
        let wanted = Wanted::named("smollm2");
        let digest = app.store.list().unwrap()[0].digest;
        // All of them, so that nothing is planned before the switch.
        let all = u32::try_from(PLANNERS).unwrap();
        let places = machine.ground.planning.acquire_many(all).await.unwrap();
        let (ready, ()) = tokio::join!(machine.ready(&wanted), async {
            sleep(Duration::from_millis(300)).await;
            app.store.engines().switch("b", None).unwrap();
            drop(places);
        });
        ready.unwrap();
        let variant = machine.variants.of(digest).remove(0);
        assert!(variant.known.of(machine.ground.build().unwrap()).is_some());
        // What waits to be loaded is loaded by whichever is in use then.
        let first = needs::to_load(&machine.ground, &variant).await.unwrap();
        assert!(Arc::ptr_eq(&first, &variant.need().unwrap()));
        app.store.engines().switch("a", None).unwrap();
        let second = needs::to_load(&machine.ground, &variant).await.unwrap();
        assert!(!Arc::ptr_eq(&first, &second));
        assert!(Arc::ptr_eq(&first, &variant.need().unwrap()), "the pool counts it by the first");
        handle.shutdown().await;
    });
}

#[test]
fn a_build_that_is_switched_to_before_a_model_is_a_member_leaves_no_size_behind() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app_with_builds(&runner);
    pull(&app, &testkit::shape(Shape::Llama), "llama");
    app.block_on(async {
        let (_, handle) = start(&app, settings(512), app.engine().unwrap());
        let machine = Arc::clone(&handle.machine);
        let model = app.store.list().unwrap().remove(0);
        let kind = variants::Kind { context: Tokens(512), vectors: None };
        let sizes = async || -> Vec<Bytes> {
            let members = machine.pool.overview().await.unwrap().members;
            members.iter().map(|one| one.member.bytes).collect()
        };
        let join = async || machine.member(&model, kind).await.unwrap();
        let variant = join().await;
        let real = variant.need().unwrap().bytes();
        assert_eq!(sizes().await, [real]);
        // As it were if the build in use needed more than the next one.
        machine.pool.forget(&variant.name).await.unwrap();
        let (build, need) = variant.known.slot().take().unwrap();
        let mut need = Arc::into_inner(need).unwrap();
        need.planned.extra = Bytes(1_000_000_000);
        *variant.known.slot() = Some((build, Arc::new(need)));
        // One who plans by the first build waits for the turn while the other is switched to and plans.
        let (first, second) = tokio::join!(join(), async {
            app.store.engines().switch("b", None).unwrap();
            join().await
        });
        assert!(Arc::ptr_eq(&first, &second));
        let need = variant.need().unwrap().bytes();
        assert!(need < real.max(Bytes(1_000_000_000)), "{need}");
        assert_eq!(sizes().await, [need]);
        handle.shutdown().await;
    });
}

#[test]
fn models_answer_by_name_and_are_held_while_they_do() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, testkit::smollm2(), "smollm2");
    pull(&app, testkit::smollm2(), "other");
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let host = &*host;
        let wanted = Wanted::named("smollm2:latest");
        let question = vec![
            Message::new(Role::System, "You answer in one short English sentence."),
            Message::new(Role::User, "What is the capital of France?"),
        ];
        let request = Request::new(Prompt::Chat(question));
        let tokens = host.count(&wanted, request.clone()).await.unwrap();
        assert_eq!(text(host, &wanted, request).await, "The capital of France is Paris.");
        // Both names are one model in memory.
        let other = host.ready(&Wanted::named("other")).await.unwrap();
        assert_eq!((other.name.as_str(), other.loaded.context), ("other", Tokens(512)));
        let ids = host.tokenize(&wanted, "Hello".into(), (false, false)).await.unwrap();
        assert_eq!(host.detokenize(&wanted, ids, false).await.unwrap().expose(), "Hello");
        assert!(tokens > Tokens(20));
        let status = host.status().await.unwrap();
        assert_eq!(in_memory(&status), [("smollm2", 512)]);
        assert!(status.models[0].leaves_in.is_some_and(|left| left <= KEEP));
        assert!(status.taken > Bytes(90_000_000) && status.taken < status.budget);
        // Others see it, and cannot remove what is behind its last name.
        let seen = sessions::running(&app.home);
        assert_eq!((seen.len(), seen[0].model.as_str()), (1, "smollm2"));
        app.store.remove(&ModelRef::Name("other".to_owned())).unwrap();
        let name = ModelRef::Name("smollm2".to_owned());
        assert!(app.store.remove(&name).is_err());
        host.unload("smollm2").await.unwrap();
        let status = until(host, |status| status.models.is_empty()).await;
        assert_eq!(status.departures[0].name, "smollm2");
        assert_eq!(status.departures[0].reason, "it was told to leave");
        assert_eq!(sessions::running(&app.home).len(), 0);
        app.store.remove(&name).unwrap();
        assert_eq!(host.ready(&wanted).await.unwrap_err().kind, ErrorKind::NotFound);
        handle.shutdown().await;
    });
}

#[test]
fn a_longer_context_replaces_a_shorter_one_and_vectors_stand_beside_text() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, &testkit::shape(Shape::Llama), "llama");
    pull(&app, &testkit::shape(Shape::Bert), "bert");
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let host = &*host;
        let forever = Wanted { keep: Some(Keep::Forever), ..Wanted::named("llama") };
        assert_eq!(host.ready(&forever).await.unwrap().loaded.context, Tokens(512));
        let longer = Wanted { context: Some(Tokens(1000)), ..Wanted::named("llama") };
        assert_eq!(host.ready(&longer).await.unwrap().loaded.context, Tokens(1024));
        let status = until(host, |status| in_memory(status) == [("llama", 1024)]).await;
        assert!(status.models[0].pinned, "{status:?}");
        // Who asks for less or nothing is served by it.
        assert!(
            !text(host, &Wanted::named("llama"), Request::new(Prompt::Text("w1".into())))
                .await
                .is_empty()
        );
        assert_eq!(host.status().await.unwrap().models[0].loads, 1);
        for (name, length) in [("bert", 64), ("llama", 64)] {
            let vectors = host
                .embed(&Wanted::named(name), vec!["w1 w2".into()], true, Asker::default())
                .await
                .unwrap();
            assert_eq!((vectors.vectors.len(), vectors.vectors[0].len()), (1, length));
        }
        let ids = host.tokenize(&Wanted::named("bert"), "w1".into(), (false, false)).await.unwrap();
        assert!(!ids.is_empty());
        let error = host
            .rank(&Wanted::named("bert"), "w1".into(), vec!["w2".into()], Asker::default())
            .await;
        assert_eq!(error.unwrap_err().kind, ErrorKind::Unsupported);
        let request = Request::new(Prompt::Text("w1".into()));
        let mut stream = host.run(&Wanted::named("bert"), request).await.unwrap();
        let first = poll_fn(|context| stream.as_mut().poll_next(context)).await.unwrap();
        assert_eq!(first.unwrap_err().kind, ErrorKind::Unsupported);
        assert_eq!(host.status().await.unwrap().models.len(), 3);
        // All variants of a name leave together; nought keeps no longer than the work.
        host.unload("llama").await.unwrap();
        let last = Wanted { keep: Some(Keep::For(Duration::ZERO)), ..Wanted::named("bert") };
        host.embed(&last, vec!["w1".into()], true, Asker::default()).await.unwrap();
        let left = until(host, |status| status.models.is_empty()).await.departures.len();
        // Nor does it leave between being ready and the answer.
        let last = Wanted { name: "llama".to_owned(), ..last };
        host.ready(&last).await.unwrap();
        assert_eq!(host.status().await.unwrap().departures.len(), left);
        text(host, &last, Request::new(Prompt::Text("w1".into()))).await;
        let status = until(host, |status| status.models.is_empty()).await;
        assert_eq!(status.departures.len(), left + 1);
        handle.shutdown().await;
        assert_eq!(host.ready(&longer).await.unwrap_err().kind, ErrorKind::Unavailable);
    });
}

#[test]
fn many_who_ask_at_once_for_a_model_that_is_away_have_it_loaded_once() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, &testkit::shape(Shape::Llama), "llama");
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let mut tasks = tokio::task::JoinSet::new();
        for at in 0..12 {
            let host = Arc::clone(&host);
            tasks.spawn(async move {
                let wanted = Wanted::named("llama");
                if at % 3 == 0 {
                    // Who leaves early takes nobody else along.
                    let early = Duration::from_millis(at);
                    let work = host.tokenize(&wanted, "w1".into(), (false, false));
                    let _ = tokio::time::timeout(early, work).await;
                    return;
                }
                let request = Request::new(Prompt::Text("w1 w2".into()));
                assert!(!text(&*host, &wanted, request).await.is_empty());
            });
        }
        tasks.join_all().await;
        let status = until(&*host, |status| status.models.iter().all(|one| one.busy == 0)).await;
        assert_eq!((status.models.len(), status.models[0].loads), (1, 1));
        handle.shutdown().await;
        assert_eq!(sessions::running(&app.home).len(), 0);
    });
}

#[test]
fn what_does_not_fit_is_refused_with_what_does_and_a_shorter_wish_is_served() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, testkit::smollm2(), "smollm2");
    app.block_on(async {
        let memory = Some(Bytes(300_000_000));
        let (host, handle) =
            start(&app, Settings { memory, ..settings(8192) }, app.engine().unwrap());
        let error = host.ready(&Wanted::named("smollm2")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::OutOfMemory);
        let hint = error.hint().unwrap();
        assert!(hint.starts_with("what fits: ") && hint.contains("--ctx "), "{hint}");
        let shorter = Wanted { context: Some(Tokens(500)), ..Wanted::named("smollm2") };
        assert_eq!(host.ready(&shorter).await.unwrap().loaded.context, Tokens(512));
        handle.shutdown().await;
    });
}

#[test]
#[cfg(unix)]
fn a_runner_in_place_of_a_dead_one_is_the_one_that_is_shown() {
    use rustix::process::{Pid, Signal, kill_process};

    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, &testkit::shape(Shape::Llama), "llama");
    let pid = || sessions::running(&app.home)[0].runner_pid;
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        host.ready(&Wanted::named("llama")).await.unwrap();
        let first = pid();
        let killed = Pid::from_raw(first.cast_signed()).unwrap();
        kill_process(killed, Signal::KILL).unwrap();
        let begun = Instant::now();
        while pid() == first {
            assert!(begun.elapsed() < Duration::from_secs(60), "the dead runner is shown");
            sleep(Duration::from_millis(20)).await;
        }
        handle.shutdown().await;
    });
}

#[test]
fn a_quarantined_model_is_not_started() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, &testkit::shape(Shape::Llama), "llama");
    let digest = app.installed("llama").unwrap().digest;
    let reason = "it died".to_owned();
    app.store.quarantine(&tieline_store::Quarantine { digest, reason, since_unix_s: 1 }).unwrap();
    app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        let error = host.ready(&Wanted::named("llama")).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Quarantined);
        assert_eq!(error.to_string(), "llama is quarantined: it died");
        app.store.lift_quarantine(digest).unwrap();
        host.ready(&Wanted::named("llama")).await.unwrap();
        handle.shutdown().await;
    });
}

#[test]
fn flags_of_a_server_mean_many_callers_and_a_part_of_the_memory() {
    use clap::Parser;
    let args =
        args::Args::try_parse_from(["tieline", "plan", "m", "--ctx", "100", "--memory", "1GB"]);
    let args::Command::Plan(plan) = args.unwrap().command else { panic!() };
    let settings = Settings::new(&plan.load, None);
    assert_eq!(settings.params.parallel, LoadParams::DEFAULT_PARALLEL);
    assert_eq!(settings.params.context, Some(Tokens(100)));
    assert_eq!((settings.params.kv_tokens, settings.memory), (None, Some(Bytes(1_000_000_000))));
    assert_eq!(usual_budget(Bytes(1000)), Bytes(900));
    assert_eq!(usual_budget(Bytes(10_000_000_000)), Bytes(9_488_000_000));
}
