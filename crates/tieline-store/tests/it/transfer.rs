//! Downloads over HTTP, from good servers and bad ones.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tieline_store::{MirrorError, PullError, PullEvent, Trust};
use tieline_types::{Bytes, Hint};

use crate::server::{Reply, Server, file};
use crate::world::{World, assert_blobs_are_true, blobs, digest, model, until};

const SIZE: u64 = 400_000;

#[test]
fn a_model_is_pulled_named_and_opened() {
    let body = model(SIZE);
    let (served, want) = (body.clone(), digest(&body));
    let server = Server::start(move |asked| file(asked, &served, "\"1\""));
    let world = World::new();
    let pulled = world.pull(&server.url("/dir/Tiny.Q8_0.gguf")).unwrap();
    assert!(!pulled.already_here);
    let model = pulled.model;
    assert_eq!(model.name, "tiny.q8_0");
    assert_eq!((model.digest, model.size), (want, Bytes(body.len() as u64)));
    assert_eq!(model.trust, Trust::FirstSeen);
    assert_eq!(model.architecture.as_deref(), Some("llama"));
    assert_eq!(model.licence.as_deref(), Some("apache-2.0"));
    assert_eq!(world.store.list().unwrap(), std::slice::from_ref(&model));
    let opened = world.store.open_model(&model).unwrap();
    assert_eq!(opened.digest, want);
    assert_eq!(std::fs::read(opened.path).unwrap(), body);
    assert_blobs_are_true(world.store.root());
    let events = world.events.all();
    assert!(matches!(events[0], PullEvent::Trying { .. }));
    assert_eq!(events[events.len() - 2..], [PullEvent::Verifying, PullEvent::Done]);
    let all = Bytes(body.len() as u64);
    assert!(events.contains(&PullEvent::Bytes { done: all, total: Some(all) }));
    assert!(std::fs::read_dir(world.store.root().join("ingest")).unwrap().next().is_none());
}

#[test]
fn a_broken_connection_goes_on_where_it_broke() {
    let body = model(SIZE);
    let (served, tries) = (body.clone(), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        let reply = file(asked, &served, "\"1\"");
        let cut = 150_000.min(reply.body.len());
        if tries.fetch_add(1, Ordering::SeqCst) < 2 { reply.cut(cut) } else { reply }
    });
    let world = World::new();
    let pulled = world.pull(&server.url("/a.gguf")).unwrap();
    assert_eq!(pulled.model.digest, digest(&body));
    let ranges: Vec<_> = server.asked().iter().map(|asked| asked.range()).collect();
    assert_eq!(ranges, [None, Some(150_000), Some(300_000)]);
    assert_eq!(server.asked()[1].headers["if-range"], "\"1\"");
    assert_eq!(server.sent(), body.len() as u64);
    assert_eq!(world.events.resumed_at(), Some(150_000));
}

#[test]
fn a_later_pull_goes_on_too() {
    let body = model(SIZE);
    let (served, tries) = (body.clone(), AtomicUsize::new(0));
    let server = Server::start(move |asked| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => file(asked, &served, "\"1\"").cut(150_000),
        1..3 => Reply::new(503, ""),
        _ => file(asked, &served, "\"1\""),
    });
    let world = World::new();
    let error = world.refused(&server.url("/a.gguf"));
    assert!(error.ends_with("/a.gguf answered 503"), "{error}");
    world.pull(&server.url("/a.gguf")).unwrap();
    assert_eq!(world.events.resumed_at(), Some(150_000));
}

#[test]
fn a_file_that_changed_is_begun_anew() {
    let (old, new) = (model(SIZE), model(SIZE + 1280));
    let (want, tries) = (digest(&new), AtomicUsize::new(0));
    let server = Server::start(move |asked| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => file(asked, &old, "\"1\"").cut(150_000),
        _ => file(asked, &new, "\"2\""),
    });
    let world = World::new();
    assert_eq!(world.pull(&server.url("/a.gguf")).unwrap().model.digest, want);
    assert_eq!(world.events.resumed_at(), None);
}

#[test]
fn more_than_was_announced_is_refused() {
    let body = model(SIZE);
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let mut reply = file(asked, &body, "\"1\"");
        if tries.fetch_add(1, Ordering::SeqCst) == 0 {
            return reply.cut(150_000);
        }
        reply.body.extend([0; 5000]);
        reply.declared = Some(None);
        reply
    });
    let world = World::new();
    let error = world.refused(&server.url("/a.gguf"));
    assert!(error.contains("it is longer than it says"), "{error}");
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn two_versions_are_never_joined() {
    let (old, mut new) = (model(SIZE), model(SIZE));
    // As long as the other, so that only the validator tells.
    new[149_999] ^= 1;
    let (want, tries) = (digest(&new), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        let mut asked = asked.clone();
        asked.headers.remove("if-range");
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => file(&asked, &old, "\"1\"").cut(150_000),
            _ => file(&asked, &new, "\"2\""),
        }
    });
    let world = World::new();
    assert_eq!(world.pull(&server.url("/a.gguf")).unwrap().model.digest, want);
    assert_eq!(
        server.asked().iter().map(|asked| asked.range()).collect::<Vec<_>>(),
        [None, Some(150_000), None]
    );
}

#[test]
fn the_end_of_another_version_is_not_ours() {
    let (old, mut new) = (model(SIZE), model(SIZE));
    new[149_999] ^= 1;
    let (want, tries) = (digest(&new), AtomicUsize::new(0));
    let server = Server::start(move |asked| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => {
            let mut reply = file(asked, &old, "\"1\"");
            reply.declared = Some(Some(old.len() as u64 + 1));
            reply
        }
        1 => Reply::new(416, "")
            .header("content-range", format!("bytes */{}", new.len()))
            .header("etag", "\"2\""),
        _ => file(asked, &new, "\"2\""),
    });
    let world = World::new();
    assert_eq!(world.pull(&server.url("/a.gguf")).unwrap().model.digest, want);
}

#[test]
fn a_server_without_ranges_is_asked_from_the_start() {
    let body = model(SIZE);
    let (want, tries) = (digest(&body), AtomicUsize::new(0));
    let server = Server::start(move |_| {
        let reply = Reply::new(200, body.clone()).header("etag", "\"1\"");
        if tries.fetch_add(1, Ordering::SeqCst) == 0 { reply.cut(150_000) } else { reply }
    });
    let world = World::new();
    assert_eq!(world.pull(&server.url("/a.gguf")).unwrap().model.digest, want);
}

#[test]
fn a_wrong_range_is_not_believed() {
    let body = model(SIZE);
    let (want, tries) = (digest(&body), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        let reply = file(asked, &body, "\"1\"");
        match tries.fetch_add(1, Ordering::SeqCst) {
            0 => reply.cut(150_000),
            // The right header would say 150000.
            1 => Reply::new(206, &body[100_000..])
                .header("content-range", format!("bytes 100000-{}/{}", body.len() - 1, body.len())),
            _ => reply,
        }
    });
    let world = World::new();
    assert_eq!(world.pull(&server.url("/a.gguf")).unwrap().model.digest, want);
    assert_eq!(server.asked()[2].range(), None);
}

#[test]
fn a_range_beyond_the_end_means_done_or_anew() {
    let body = model(SIZE);
    let (served, want) = (body.clone(), digest(&body));
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        // Declares one byte too many, so that a whole file looks cut.
        let mut reply = file(asked, &served, "\"1\"");
        if tries.fetch_add(1, Ordering::SeqCst) == 0 {
            reply.declared = Some(Some(served.len() as u64 + 1));
        }
        reply
    });
    let world = World::new();
    assert_eq!(world.pull(&server.url("/a.gguf")).unwrap().model.digest, want);
    assert_eq!(server.asked().len(), 2);

    let tries = AtomicUsize::new(0);
    let served = body.clone();
    let server = Server::start(move |asked| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => file(asked, &served, "\"1\"").cut(150_000),
        1 => Reply::new(416, "").header("content-range", "bytes */7"),
        _ => file(asked, &served, "\"1\""),
    });
    let world = World::new();
    assert_eq!(world.pull(&server.url("/a.gguf")).unwrap().model.digest, want);
}

#[test]
fn a_server_that_always_cuts_is_given_up() {
    let body = model(SIZE);
    let server = Server::start(move |asked| file(asked, &body, "\"1\"").cut(10));
    let error = World::new().refused(&server.url("/a.gguf"));
    assert!(error.contains("cannot read http://127.0.0.1"), "{error}");
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn a_dripping_server_is_a_stalled_one() {
    let body = model(SIZE);
    let server = Server::start(move |asked| file(asked, &body, "\"1\"").pace(1, 20));
    let mut world = World::new();
    world.environment.tuning.stall = Duration::from_millis(300);
    world.environment.tuning.attempts = 1;
    let error = world.refused(&server.url("/a.gguf"));
    assert!(error.contains("stalled: no progress"), "{error}");
}

#[test]
fn wrong_content_is_deleted_and_the_next_mirror_tried() {
    let (good, mut bad) = (model(SIZE), model(SIZE));
    *bad.last_mut().unwrap() ^= 1;
    let (served, wrong) = (good.clone(), bad.clone());
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/bad" => file(asked, &wrong, "\"1\""),
        "/short" => file(asked, &wrong[..1000], "\"1\""),
        "/gone" => Reply::new(404, ""),
        _ => file(asked, &served, "\"1\""),
    });
    let mut world = World::new();
    let dead = "http://127.0.0.1:9/dead".to_owned();
    let mirrors = ["/bad", "/short", "/gone"].map(|path| server.url(path));
    let mirrors = [&[dead], mirrors.as_slice()].concat();
    world.catalogue_of(&good, &mirrors);
    let error = world.refused("m");
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines[0], "cannot pull m from any of 4 mirrors");
    assert!(lines[1].contains("/dead: cannot connect to 127.0.0.1:9"), "{error}");
    let both = format!("expected {}, found {}", digest(&good), digest(&bad));
    assert!(lines[2].contains(&both), "{error}");
    assert!(lines[3].contains(&format!("expected {} bytes, found 1000", good.len())), "{error}");
    assert!(lines[4].ends_with("/gone answered 404"), "{error}");

    world.catalogue_of(&good, &[mirrors.as_slice(), &[server.url("/good")]].concat());
    let pulled = world.pull("m").unwrap();
    assert_eq!(pulled.model.trust, Trust::Pinned);
    assert_eq!(pulled.model.source, server.url("/good"));
    assert_eq!(pulled.model.reference, "m");
    assert_eq!(pulled.model.licence.as_deref(), Some("Test"));
    let failed = |event: &PullEvent| matches!(event, PullEvent::MirrorFailed { .. });
    assert_eq!(world.events.all().iter().filter(|event| failed(event)).count(), 8);
    assert_blobs_are_true(world.store.root());
}

#[test]
fn a_wrong_digest_names_both() {
    let body = model(SIZE);
    let (found, server) = (digest(&body), Server::start(move |a| file(a, &body, "\"1\"")));
    let mut world = World::new();
    let expected = digest(b"another");
    world.expected = Some(expected);
    let error = world.pull(&server.url("/a.gguf")).unwrap_err();
    let want = format!("wrong content: expected {expected}, found {found}");
    assert!(error.to_string().ends_with(&want), "{error}");
    assert!(error.hint().unwrap().contains("do not trust it"));
    assert!(blobs(world.store.root()).is_empty());
}

#[test]
fn what_is_no_model_is_refused() {
    let body = model(SIZE);
    let cut = body[..5000].to_vec();
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/html" => Reply::new(200, "<!doctype html><title>sign in</title>"),
        "/empty" => Reply::new(200, ""),
        _ => Reply::new(200, cut.clone()),
    });
    let world = World::new();
    let check = |path: &str, want: &str| {
        let error = world.refused(&server.url(path));
        assert!(error.contains(want), "{error}");
    };
    check("/html", "the file was refused: the file starts with \"<!do\"");
    check("/empty", "the file was refused: the file is empty");
    check("/cut", "it is truncated");
}

#[test]
fn redirects_are_followed_within_limits() {
    let body = model(SIZE);
    let (served, want) = (body.clone(), digest(&body));
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/5" => Reply::redirect("/4"),
        "/4" => Reply::redirect("/3"),
        "/3" => Reply::redirect("/2"),
        "/2" => Reply::redirect("/1"),
        "/1" => Reply::redirect("/0"),
        "/loop" => Reply::redirect("/loop"),
        "/out" => Reply::redirect("http://10.0.0.1/x"),
        "/file" => Reply::redirect("file:///etc/passwd"),
        "/nowhere" => Reply::new(302, ""),
        _ => file(asked, &served, "\"1\""),
    });
    let world = World::new();
    let check = |path: &str, want: &str| {
        let error = world.refused(&server.url(path));
        assert!(error.contains(want), "{error}");
    };
    check("/loop", "more than 5 redirects");
    check("/out", "http is for this machine only");
    check("/file", "only https is fetched");
    check("/nowhere", "a redirect to nowhere");
    assert_eq!(world.pull(&server.url("/5")).unwrap().model.digest, want);
}

#[test]
fn packed_answers_are_refused() {
    let server = Server::start(|_| Reply::new(200, "x").header("content-encoding", "gzip"));
    let error = World::new().refused(&server.url("/a.gguf"));
    assert!(error.contains("it is packed"), "{error}");
    assert_eq!(server.asked()[0].headers["accept-encoding"], "identity");
}

#[test]
fn http_elsewhere_and_offline_are_refused() {
    let mut world = World::new();
    let error = world.refused("http://example.org/a.gguf");
    assert!(error.contains("http is for this machine only"), "{error}");
    world.environment.offline = true;
    let error = world.pull("https://example.org/a.gguf").unwrap_err();
    assert!(matches!(error, PullError::Offline { .. }), "{error}");
    assert_eq!(error.to_string(), "cannot pull https://example.org/a.gguf: working offline");
    assert!(error.hint().unwrap().contains("go online"));
}

#[test]
fn a_dropped_pull_leaves_what_it_has() {
    let body = model(SIZE);
    let (served, want) = (body.clone(), digest(&body));
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let reply = file(asked, &served, "\"1\"");
        if tries.fetch_add(1, Ordering::SeqCst) == 0 { reply.pace(20_000, 50) } else { reply }
    });
    let world = World::new();
    let url = crate::world::reference(&server.url("/a.gguf"));
    crate::world::run(async {
        let enough = until(|| server.sent() >= 200_000);
        tokio::select! {
            pulled = world.store.pull(&url, world.options()) => panic!("{pulled:?}"),
            () = enough => {}
        }
    });
    assert_eq!(world.pull(&server.url("/a.gguf")).unwrap().model.digest, want);
    assert!(world.events.resumed_at().is_some());
}

#[test]
fn a_changed_source_is_not_taken_silently() {
    let bodies = [model(SIZE), model(SIZE + 1280)];
    let [old, new] = [digest(&bodies[0]), digest(&bodies[1])];
    let tries = AtomicUsize::new(0);
    let server = Server::start(move |asked| {
        let turn = tries.fetch_add(1, Ordering::SeqCst).min(1);
        file(asked, &bodies[turn], &format!("\"{turn}\""))
    });
    let mut world = World::new();
    let url = server.url("/a.gguf");
    world.pull(&url).unwrap();
    let error = world.pull(&url).unwrap_err();
    assert!(matches!(error, PullError::Changed { .. }), "{error}");
    assert!(error.hint().unwrap().contains(&new.to_string()));
    assert_eq!(world.store.list().unwrap()[0].digest, old);
    // The bytes were kept, so accepting them transfers nothing.
    let before = server.sent();
    world.expected = Some(new);
    let pulled = world.pull(&url).unwrap();
    assert_eq!((pulled.model.digest, pulled.already_here), (new, true));
    assert_eq!((pulled.model.trust, server.sent()), (Trust::Pinned, before));
}

#[test]
fn a_signature_is_used_and_never_shown() {
    let body = model(SIZE);
    let served = body.clone();
    let server = Server::start(move |asked| match asked.path.contains("bad") {
        true => Reply::new(403, ""),
        false => file(asked, &served, "\"1\""),
    });
    let world = World::new();
    let url = server.url("/a.gguf");
    let model = world.pull(&format!("{url}?signature=SECRET")).unwrap().model;
    assert_eq!((&model.source, &model.reference), (&url, &url));
    assert_eq!(world.store.list().unwrap(), std::slice::from_ref(&model));
    // It is pulled again with its signature: by its name, and by its digest.
    for again in ["a".to_owned(), model.digest.to_string()] {
        std::fs::remove_file(blobs(world.store.root()).remove(0)).unwrap();
        world.pull(&again).unwrap();
        assert!(server.asked().last().unwrap().path.ends_with("?signature=SECRET"));
    }
    let error = world.pull(&format!("{}?signature=SECRET", server.url("/bad.gguf"))).unwrap_err();
    let said = format!("{error} {error:?} {:?}", world.events.all());
    assert!(said.contains("/bad.gguf") && !said.contains("SECRET"), "{said}");
}

#[test]
fn a_part_is_refused_before_it_is_fetched() {
    let server = Server::start(|_| Reply::new(500, ""));
    let mut world = World::new();
    world.environment.hugging_face.endpoint = server.url("");
    for text in [server.url("/m-00001-of-00002.gguf"), "hf:o/r:m-00001-of-00002.gguf".to_owned()] {
        let error = world.refused(&text);
        assert!(error.contains("m-00001-of-00002.gguf is one of several parts"), "{error}");
    }
    assert!(server.asked().is_empty());
}

#[test]
fn errors_keep_their_kind() {
    let server = Server::start(|_| Reply::new(403, ""));
    let error = World::new().pull(&server.url("/a.gguf")).unwrap_err();
    assert!(error.hint().unwrap().contains("access token"));
    let PullError::AllFailed { failures, .. } = error else { panic!("{error}") };
    assert!(matches!(failures[0].error, MirrorError::Status { status: 403, .. }));
}
