//! Models on their way to a registry, and back.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tieline_store::{Overlay, PullOptions, PushError, PushEvent, PushOptions};
use tieline_types::{Bytes, Digest, Hint};

use crate::registry::{Registry, error};
use crate::server::{Reply, Server};
use crate::world::{World, digest, model, reference, run, until};

const SIZE: u64 = 700_000;
const MODEL: &str = "application/vnd.ollama.image.model";

/// A world with a model `m`.
fn world() -> (World, Digest) {
    let world = World::new();
    let bytes = model(SIZE);
    let path = world.folder.path().join("m.gguf");
    std::fs::write(&path, &bytes).unwrap();
    world.pull(&format!("file:{}", path.display())).unwrap();
    (world, digest(&bytes))
}

fn pirate() -> Overlay {
    Overlay {
        name: "pirate".to_owned(),
        base: "m".to_owned(),
        system: Some("Say CANARY.".into()),
        template: Some("{{ .Prompt }}".to_owned()),
        licence: Some("MIT".to_owned()),
        parameters: r#"{"temperature":0.5,"stop":["a"]}"#.to_owned(),
        messages: r#"[{"role":"user","content":"Hi"}]"#.into(),
        changed_at_unix_s: 1,
    }
}

/// A world with `m` and what was made of it, and a registry that has the latter under this name.
fn with_pirate(path: &str) -> (World, Digest, Registry, String) {
    let (world, want) = world();
    world.store.keep_overlay(&pirate()).unwrap();
    let registry = Registry::start();
    let place = registry.place(path);
    push(&world, "pirate", &place).unwrap();
    (world, want, registry, place)
}

async fn push_with(
    world: &World,
    (name, place): (&str, &str),
    (insecure, tell): (bool, &(dyn Fn(PushEvent) + Send + Sync)),
) -> Result<(), PushError> {
    let options = PushOptions { environment: &world.environment, insecure, tell };
    world.store.push(&reference(name), &place.parse().unwrap(), options).await
}

fn push(world: &World, name: &str, place: &str) -> Result<(), PushError> {
    run(push_with(world, (name, place), (false, &|_| {})))
}

#[test]
fn a_model_goes_to_a_registry_and_comes_back() {
    let (world, want) = world();
    let registry = Registry::start();
    let events = Mutex::new(Vec::new());
    let tell = |event| events.lock().unwrap().push(event);
    let place = registry.place("me/m:v1");
    run(push_with(&world, ("m", &place), (false, &tell))).unwrap();
    let manifest = registry.manifest("me/m", "v1").unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
    assert_eq!(manifest["layers"][0]["mediaType"], MODEL);
    assert_eq!(manifest["layers"][0]["digest"], want.to_string());
    assert_eq!(registry.blob(&want.to_string()).unwrap(), model(SIZE));
    // Each file is asked after before it is sent, and what ties them together comes last.
    let methods: Vec<String> = registry.asked().into_iter().map(|(method, _)| method).collect();
    assert_eq!(methods, ["HEAD", "POST", "PUT", "HEAD", "POST", "PUT", "PUT"]);
    let total = Bytes(model(SIZE).len() as u64);
    let events = events.into_inner().unwrap();
    assert!(events.contains(&PushEvent::Blob { digest: want, done: total, total }));
    assert_eq!(events.last(), Some(&PushEvent::Manifest));

    let elsewhere = World::new();
    let pulled = elsewhere.pull(&format!("oci:{place}")).unwrap().model;
    assert_eq!((pulled.name.as_str(), pulled.digest), ("m:v1", want));
    assert_eq!(pulled.source, format!("oci:{place}"));
    assert!(elsewhere.store.overlay("m:v1").unwrap().is_none());
}

#[test]
fn what_was_made_comes_back_with_what_it_says() {
    let (world, want) = world();
    let overlay = pirate();
    world.store.keep_overlay(&overlay).unwrap();
    let registry = Registry::start();
    let place = registry.place("me/pirate");
    push(&world, "pirate", &place).unwrap();
    let elsewhere = World::new();
    let pulled = elsewhere.pull(&format!("oci:{place}")).unwrap().model;
    assert_eq!((pulled.name.as_str(), pulled.digest), ("pirate", want));
    let kept = elsewhere.store.overlay("pirate").unwrap().unwrap();
    let changed_at_unix_s = kept.changed_at_unix_s;
    assert_eq!(kept, Overlay { base: "pirate".to_owned(), changed_at_unix_s, ..overlay });
    // Also where its file is here already, under another name.
    let again = world.pull(&format!("oci:{place}")).unwrap();
    assert!(again.already_here);
    assert_eq!(again.model.name, format!("pirate-{}", want.short()));
    let kept = world.store.overlay(&again.model.name).unwrap().unwrap();
    assert_eq!(kept.system, pirate().system);
    // From there it goes on as it is.
    push(&elsewhere, "pirate", &registry.place("you/pirate")).unwrap();
    assert_eq!(registry.manifest("you/pirate", "latest"), registry.manifest("me/pirate", "latest"));
}

#[test]
fn a_registry_puts_nothing_before_a_model_that_is_here() {
    let (world, want, registry, place) = with_pirate("you/m");
    // The same file as the model `m` that came from elsewhere, and a prompt of a stranger's.
    let pulled = world.pull(&format!("oci:{place}")).unwrap().model;
    assert_eq!(pulled.name, format!("m-{}", want.short()));
    assert!(world.store.overlay("m").unwrap().is_none());
    assert_eq!(world.store.overlay(&pulled.name).unwrap().unwrap().system, pirate().system);
    let options = PullOptions { name: Some("m".to_owned()), ..world.options() };
    let told = run(world.store.pull(&reference(&format!("oci:{place}")), options)).unwrap_err();
    assert!(told.to_string().contains("is taken by"), "{told}");
    // With nothing beside it, it is the model that is here.
    let plain = registry.place("they/m");
    push(&world, "m", &plain).unwrap();
    assert_eq!(world.pull(&format!("oci:{plain}")).unwrap().model.name, "m");
}

#[test]
fn what_a_tag_says_does_not_change_silently() {
    let (world, _, _registry, place) = with_pirate("me/pirate");
    let elsewhere = World::new();
    let pull = || elsewhere.pull(&format!("oci:{place}"));
    let mut said = pirate();
    pull().unwrap();
    assert!(pull().unwrap().already_here, "nothing has changed");
    let kept = || elsewhere.store.overlay("pirate").unwrap().unwrap().system;
    for system in [Some("Say nothing.".into()), None] {
        said.system = system;
        world.store.keep_overlay(&said).unwrap();
        push(&world, "pirate", &place).unwrap();
        let error = pull().unwrap_err();
        let text =
            "what its registry keeps beside model \"pirate\" is not what stands before it here";
        assert_eq!(error.to_string(), text);
        assert!(error.hint().unwrap().contains("another name"));
        assert_eq!(kept(), pirate().system);
    }
    // All of it gone is a change too.
    push(&world, "m", &place).unwrap();
    pull().unwrap_err();
    assert_eq!(kept(), pirate().system);
}

#[test]
fn pulls_at_once_under_two_names_both_say_what_the_registry_keeps() {
    let (_, _, _registry, place) = with_pirate("me/pirate");
    let elsewhere = World::new();
    let pull = |name: &str| {
        let options = PullOptions { name: Some(name.to_owned()), ..elsewhere.options() };
        run(elsewhere.store.pull(&reference(&format!("oci:{place}")), options)).unwrap();
    };
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let pull = &pull;
            scope.spawn(move || pull(name));
        }
    });
    for name in ["a", "b", "c"] {
        let kept = elsewhere.store.overlay(name).unwrap().unwrap();
        assert_eq!(kept.system, pirate().system, "{name}");
    }
}

#[test]
fn a_mirror_of_a_pinned_model_gives_the_file_alone() {
    let (_, want, _registry, place) = with_pirate("me/pirate");
    let mut elsewhere = World::new();
    elsewhere.catalogue_of(&model(SIZE), &[format!("oci:{place}")]);
    let pulled = elsewhere.pull("m").unwrap().model;
    assert_eq!((pulled.name.as_str(), pulled.digest), ("m", want));
    assert!(elsewhere.store.overlay("m").unwrap().is_none());
}

#[test]
fn a_model_that_is_here_needs_no_registry() {
    let (world, want) = world();
    world.store.keep_overlay(&pirate()).unwrap();
    let away = Arc::new(AtomicBool::new(false));
    let registry = Registry::with({
        let away = Arc::clone(&away);
        move |_| away.load(Ordering::Relaxed).then(|| error(500, "away"))
    });
    let place = registry.place("me/pirate");
    push(&world, "pirate", &place).unwrap();
    let elsewhere = World::new();
    elsewhere.pull(&format!("oci:{place}")).unwrap();
    away.store(true, Ordering::Relaxed);
    let pulled = elsewhere.pull(&want.to_string()).unwrap();
    assert_eq!((pulled.already_here, pulled.model.name.as_str()), (true, "pirate"));
    let kept = elsewhere.store.overlay("pirate").unwrap().unwrap();
    assert_eq!(kept.system, pirate().system);
    let refused = elsewhere.pull(&format!("oci:{place}")).unwrap_err().to_string();
    assert!(refused.contains("answered 500"), "{refused}");
    // Under a new name it would lack what the registry says.
    let named =
        PullOptions { name: Some("new".to_owned()), expected: Some(want), ..elsewhere.options() };
    run(elsewhere.store.pull(&reference(&format!("oci:{place}")), named)).unwrap_err();
    assert_eq!(elsewhere.store.list().unwrap().len(), 1);
}

#[test]
fn what_is_there_is_not_sent_again() {
    let (world, _) = world();
    let registry = Registry::start();
    push(&world, "m", &registry.place("me/m")).unwrap();
    let before = registry.asked().len();
    push(&world, "m", &registry.place("me/m:again")).unwrap();
    let methods = registry.asked().split_off(before);
    let methods: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(methods, ["HEAD", "HEAD", "PUT"]);
    assert_eq!(registry.manifest("me/m", "again"), registry.manifest("me/m", "latest"));
}

/// The error of a push that gives the tag no meaning.
#[track_caller]
fn refused(registry: &Registry, want: &str) -> PushError {
    let (world, _) = world();
    let error = push(&world, "m", &registry.place("me/m")).unwrap_err();
    assert!(error.to_string().contains(want), "{error}");
    assert_eq!(registry.manifest("me/m", "latest"), None);
    error
}

#[test]
fn a_registry_that_refuses_says_why() {
    let closed = Registry::with(|_| Some(error(401, "authentication required")));
    let told = refused(&closed, "wants credentials");
    assert!(told.to_string().ends_with("and none are sent"), "{told}");
    assert!(told.hint().is_some());
    let closed = Registry::with(|asked| {
        (asked.method == "POST").then(|| error(403, "denied: \u{1b}[2Jyou may not"))
    });
    refused(&closed, "none are sent: denied: [2Jyou may not");
    let full = Registry::with(|asked| (asked.method == "PUT").then(|| error(413, "too large")));
    refused(&full, "answered 413: too large");
    let lost = Registry::with(|asked| (asked.method == "POST").then(|| Reply::new(202, "")));
    refused(&lost, "does not say where to go on");
}

#[test]
fn what_fails_in_passing_is_tried_again() {
    let tries = AtomicUsize::new(0);
    let registry = Registry::with(move |asked| {
        let fails = asked.method == "PUT" && tries.fetch_add(1, Ordering::SeqCst) < 2;
        fails.then(|| Reply::new(503, ""))
    });
    let (world, want) = world();
    push(&world, "m", &registry.place("me/m")).unwrap();
    assert!(registry.blob(&want.to_string()).is_some());
    let down = Registry::with(|_| Some(Reply::new(503, "")));
    refused(&down, "answered 503");
    assert_eq!(down.asked().len(), 3);
}

#[test]
fn an_upload_is_led_on_within_this_machine_and_no_further() {
    let elsewhere = Server::start(|_| Reply::new(201, ""));
    let to = elsewhere.url("/take?key=secret");
    let registry = Registry::with(move |asked| {
        let leads = asked.method == "PUT" && asked.path.contains("/blobs/");
        leads.then(|| Reply::new(307, "").header("location", to.clone()))
    });
    // The files went to the other host, so that the registry does not know them.
    refused(&registry, "blob unknown");
    let asked = elsewhere.asked();
    assert_eq!(asked.last().unwrap().body, model(SIZE));
    assert!(asked.iter().all(|asked| !asked.headers.contains_key("authorization")));
    for (to, why) in [
        ("http://registry.example/x?key=secret", "another host over http"),
        ("ftp://registry.example/x", "only https"),
        ("https://me:pw@registry.example/x", "user name"),
    ] {
        let led = Registry::with(move |asked| {
            (asked.method == "POST").then(|| Reply::new(202, "").header("location", to))
        });
        let told = refused(&led, why).to_string();
        assert!(!told.contains("secret") && !told.contains("pw"), "{told}");
    }
    let round =
        Registry::with(|asked| Some(Reply::new(307, "").header("location", asked.path.clone())));
    refused(&round, "more than 5 redirects");
}

/// A registry that has the first file, wants the second, and reads none of its bytes. Where it is.
fn deaf() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("{}/me/big", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let replies = [
            "HTTP/1.1 200 X\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 404 X\r\nconnection: close\r\n\r\n",
            "HTTP/1.1 202 X\r\nlocation: /u\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            "",
        ];
        let mut open = Vec::new();
        for (stream, reply) in listener.incoming().zip(replies) {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            stream.write_all(reply.as_bytes()).unwrap();
            open.push(stream);
        }
        // Until the test ends.
        std::thread::park();
    });
    place
}

#[test]
fn a_registry_that_takes_nothing_more_is_given_up() {
    let (mut world, _) = world();
    world.environment.tuning.stall = Duration::from_millis(500);
    world.environment.tuning.attempts = 1;
    // More than what the system takes for a reader that is slow.
    let path = world.folder.path().join("big.gguf");
    std::fs::write(&path, model(24 << 20)).unwrap();
    world.pull(&format!("file:{}", path.display())).unwrap();
    let error = push(&world, "big", &deaf()).unwrap_err();
    assert!(error.to_string().contains("/u stalled: no progress"), "{error}");
    assert!(error.hint().unwrap().contains("push again"));
}

#[test]
fn what_is_no_model_is_not_pushed() {
    let (mut world, _) = world();
    let registry = Registry::start();
    let place = registry.place("me/x");
    let adapted = Overlay { name: "bent".to_owned(), base: "m+law".to_owned(), ..pirate() };
    world.store.keep_overlay(&adapted).unwrap();
    for (name, want) in [("nobody", "no model"), ("bent", "has adapters")] {
        let error = push(&world, name, &place).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }
    world.environment.offline = true;
    assert!(matches!(push(&world, "m", &place), Err(PushError::Offline { .. })));
    assert!(registry.asked().is_empty());
}

#[test]
fn a_damaged_file_is_not_pushed() {
    let (world, want) = world();
    let path = world.store.root().join("blobs/sha256").join(&want.hex()[..2]).join(want.hex());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, model(SIZE - 1280)).unwrap();
    let registry = Registry::start();
    let error = push(&world, "m", &registry.place("me/m")).unwrap_err();
    assert!(error.to_string().contains("was changed"), "{error}");
    assert!(registry.asked().is_empty());
}

#[test]
fn whoever_leaves_stops_the_push() {
    let (world, _) = world();
    let (open, gate) = std::sync::mpsc::sync_channel::<()>(1);
    let gate = Mutex::new(gate);
    let registry = Registry::with(move |asked| {
        if asked.method == "PUT" {
            let _ = gate.lock().unwrap().recv();
        }
        None
    });
    let place = registry.place("me/m");
    run(async {
        tokio::select! {
            done = push_with(&world, ("m", &place), (false, &|_| {})) => panic!("{done:?}"),
            () = until(|| registry.asked().len() == 3) => {}
        }
    });
    drop(open);
    assert_eq!(registry.manifest("me/m", "latest"), None);
    assert_eq!(registry.asked().len(), 3);
}

#[test]
fn a_registry_that_lies_gives_nothing() {
    let registry = Registry::start();
    let good = model(SIZE);
    let system = "application/vnd.ollama.image.system";
    let (file, said) = (registry.keep(MODEL, &good), registry.keep(system, b"x"));
    let params = registry.keep("application/vnd.ollama.image.params", b"[1]");
    let other = |size| json!({ "mediaType": system, "digest": file["digest"], "size": size });
    registry.tag("me/none", "latest", std::slice::from_ref(&said));
    registry.tag("me/form", "latest", &[file.clone(), params]);
    registry.tag("me/bytes", "latest", &[file.clone(), other(good.len())]);
    let longer = json!({ "mediaType": MODEL, "digest": file["digest"], "size": 1000 });
    registry.tag("me/longer", "latest", &[longer]);
    registry.tag("me/short", "latest", &[file.clone(), other(1)]);
    registry.tag("me/long", "latest", &[file.clone(), other(2 << 20)]);
    registry.tag(
        "me/path",
        "latest",
        &[json!({ "mediaType": MODEL, "digest": "sha256:../x", "size": 1 })],
    );
    for (name, want) in [
        ("none", "no model of one GGUF file"),
        ("form", "another form"),
        ("bytes", "no text"),
        ("short", "bytes, and should have 1"),
        ("long", "says more than a model says"),
        ("longer", "wrong size: expected"),
        ("path", "no manifest"),
        ("gone", "answered 404"),
    ] {
        let world = World::new();
        let error = world.refused(&format!("oci:{}", registry.place(&format!("me/{name}"))));
        assert!(error.contains(want), "{name}: {error}");
    }
}

#[test]
fn a_tag_that_moved_is_not_taken_silently() {
    let registry = Registry::start();
    let (world, place) = (World::new(), format!("oci:{}", registry.place("me/m")));
    for (size, want) in [(SIZE, None), (SIZE + 1280, Some("has changed at its source"))] {
        let file = registry.keep(MODEL, &model(size));
        registry.tag("me/m", "latest", &[file]);
        match (world.pull(&place), want) {
            (Ok(pulled), None) => assert_eq!(pulled.model.name, "m"),
            (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{error}"),
            (done, _) => panic!("{done:?}"),
        }
    }
}
