use super::*;

const PROCESSOR: &str = "One";

struct Room {
    root: tempfile::TempDir,
    engines: Engines,
}

impl Room {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let engines = Engines { root: root.path().join("engines"), patience: Duration::ZERO };
        Self { root, engines }
    }

    /// A program that is none, with a library beside it.
    fn program(&self, content: &str) -> PathBuf {
        let folder = self.root.path().join(content);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("libggml-base.so.0"), "library").unwrap();
        fs::write(folder.join("libother.so"), "not ours").unwrap();
        fs::write(folder.join("runner"), content).unwrap();
        folder.join("runner")
    }

    fn add(&self, content: &str, name: &str) -> Result<(String, Build), EngineError> {
        let staged = self.engines.stage(&self.program(content))?;
        staged.keep(Some(name.to_owned()), (facts(), "2026-11-28T00:00:00Z".to_owned()))
    }

    /// Notes a canary that passed against the runner beside the program but for what `change` does to it.
    fn noted(&self, name: &str, change: impl FnOnce(&mut Canary)) {
        let digest = self.engines.read().unwrap().builds[name].digest;
        let mut canary = passed();
        change(&mut canary);
        self.engines.note(name, digest, canary).unwrap();
    }

    fn file(&self, name: &str) -> PathBuf {
        let digest = self.engines.read().unwrap().builds[name].digest;
        self.engines.folder(digest).join(tree::RUNNER)
    }

    fn in_use(&self) -> [Option<String>; 2] {
        let lock = self.engines.read().unwrap();
        [lock.current, lock.previous]
    }
}

fn facts() -> BuildFacts {
    let (kernels, devices) = (vec!["AVX2".to_owned()], vec!["CPU".to_owned()]);
    BuildFacts {
        runner: "0.1.0".into(),
        llama_cpp: "b1 (x)".into(),
        wire: wire::VERSION,
        kernels,
        devices,
    }
}

fn passed() -> Canary {
    Canary {
        passed: true,
        at: "2026-11-28T00:00:00Z".into(),
        processor: PROCESSOR.into(),
        model_name: "small".into(),
        model: Digest([1; 32]),
        prompts: "built-in".into(),
        prompts_digest: Some(Digest([2; 32])),
        against: "the runner beside the program".into(),
        incumbent: Some(Digest([3; 32])),
        rounds: 3,
        figures: [("kl_nats".to_owned(), 0.25)].into(),
        limits: [("kl_nats".to_owned(), 0.5)].into(),
        failed: Vec::new(),
    }
}

/// As [`passed`] was run.
fn standing() -> Standing {
    Standing {
        processor: PROCESSOR.into(),
        beside: Some(Digest([3; 32])),
        model: Some(Digest([1; 32])),
        prompts: Some(Digest([2; 32])),
    }
}

/// Writes over a file that its owner may not write to.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, EngineError>, want: &str) {
    let error = result.unwrap_err();
    assert!(error.to_string().contains(want), "{error}");
    assert!(tieline_types::Hint::hint(&error).is_some(), "{error}");
}

#[test]
fn a_build_is_its_program_and_llama_cpps_libraries() {
    let room = Room::new();
    let (_, build) = room.add("one", "a").unwrap();
    assert_eq!(build.bytes.0, 10);
    let folder = room.engines.folder(build.digest);
    let mut names: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["libggml-base.so.0", "tieline-runner"]);
    let open = room.engines.open("a").unwrap();
    assert_eq!(std::io::read_to_string(open.file).unwrap(), "one");
    assert_eq!(room.engines.owner(&open.path).as_deref(), Some("a"));
    assert_eq!(room.engines.owner(Path::new("/bin/true")), None);
    // The same again is no change; by another name it is here already.
    assert_eq!(room.add("one", "a").unwrap().1, build);
    refused(room.add("one", "b"), "here already, named a");
    refused(room.add("two", "a"), "another build is named a");
}

#[test]
fn what_cannot_be_added_leaves_nothing() {
    let room = Room::new();
    refused(
        room.engines.stage(Path::new("/nowhere/runner")),
        "no runner to add at /nowhere/runner",
    );
    for name in ["", "-a", "a/b", "..", "ä", &"a".repeat(65)] {
        refused(room.add("one", name), "cannot name a build");
    }
    assert_eq!(fs::read_dir(room.engines.builds()).unwrap().count(), 0);
    assert!(!room.engines.root.join("new").exists());
    let unnamed = room.engines.stage(&room.program("one")).unwrap();
    let (name, build) = unnamed.keep(None, (facts(), String::new())).unwrap();
    assert_eq!(name, format!("b1-{}", &build.digest.hex()[..8]));
}

#[test]
fn while_one_adds_no_other_does() {
    let room = Room::new();
    let staged = room.engines.stage(&room.program("one")).unwrap();
    refused(
        room.add("two", "b"),
        "another program adds or changes builds of the runner, and was not done within 0 s",
    );
    drop(staged);
    room.add("two", "b").unwrap();
}

#[test]
fn what_a_killed_add_left_is_swept_up() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    // Killed while it copied, and killed between the files and the lock file.
    fs::create_dir(room.engines.root.join("new")).unwrap();
    fs::write(room.engines.root.join("new/tieline-runner"), "ha").unwrap();
    let orphan = room.engines.folder(Digest([9; 32]));
    fs::create_dir(&orphan).unwrap();
    assert_eq!(room.engines.read().unwrap().builds.len(), 1);
    room.add("two", "b").unwrap();
    assert!(!orphan.exists() && !room.engines.root.join("new").exists());
    room.engines.open("a").unwrap();
}

#[test]
fn a_damaged_build_is_never_opened_and_can_be_added_again() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    room.engines.open("a").unwrap();
    overwrite(&room.file("a"), b"onf");
    refused(room.engines.open("a"), "is not what was added");
    refused(room.engines.switch("a", None), "is not what was added");
    room.add("one", "a").unwrap();
    room.engines.open("a").unwrap();
    // What is added beside would be loaded too.
    fs::write(room.file("a").with_file_name("libggml-evil.so"), "x").unwrap();
    refused(room.engines.open("a"), "is not what was added");
    fs::remove_dir_all(room.file("a").parent().unwrap()).unwrap();
    refused(room.engines.open("a"), "is not what was added");
}

#[test]
fn what_looks_the_same_is_hashed_only_when_asked() {
    let room = Room::new();
    let (_, build) = room.add("one", "a").unwrap();
    room.engines.open("a").unwrap();
    let kept = room.engines.root.join("seen").join(build.digest.hex());
    let seen = fs::read(&kept).unwrap();
    overwrite(&room.file("a"), b"onf");
    // As if the disk had changed the bytes and nothing else.
    let tree = Tree::open(&room.engines.folder(build.digest)).unwrap();
    fs::write(&kept, serde_json::to_vec(&tree.seen()).unwrap()).unwrap();
    assert_ne!(fs::read(&kept).unwrap(), seen);
    room.engines.open("a").unwrap();
    refused(room.engines.verify("a"), "is not what was added");
}

#[test]
fn an_open_program_stays_what_was_verified() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    let open = room.engines.open("a").unwrap();
    overwrite(&room.file("a"), b"two");
    assert_eq!(std::io::read_to_string(open.file).unwrap(), "one");
}

#[test]
fn only_what_passed_here_is_used() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    let switch = |name: &str| room.engines.switch(name, Some(&standing()));
    refused(room.engines.switch("b", None), "no build of the runner is named \"b\"");
    refused(switch("a"), "no canary was run");
    room.noted("a", |canary| {
        canary.passed = false;
        canary.failed = vec!["decode".into()];
    });
    refused(switch("a"), "failed: decode");
    room.noted("a", |canary| canary.processor = "Two".into());
    refused(switch("a"), "on another processor, Two");
    assert_eq!(room.in_use(), [None, None]);
    room.noted("a", |_| {});
    switch("a").unwrap();
    assert_eq!(room.in_use(), [Some("a".into()), None]);
}

#[test]
fn processors_without_a_name_are_not_the_same() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    room.noted("a", |canary| canary.processor = String::new());
    let unknown = Standing { processor: String::new(), ..standing() };
    refused(room.engines.switch("a", Some(&unknown)), "nobody knows");
    refused(room.engines.switch("a", Some(&standing())), "nobody knows");
    assert_eq!(room.in_use(), [None, None]);
}

#[test]
fn a_canary_speaks_for_what_it_was_compared_with() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    let (_, b) = room.add("two", "b").unwrap();
    let switch = |name: &str| room.engines.switch(name, Some(&standing()));
    // Another runner lies beside the program now, or nobody wrote down which did.
    room.noted("a", |canary| canary.incumbent = Some(Digest([4; 32])));
    refused(
        switch("a"),
        "compared it with the runner beside the program, and in use now is the runner",
    );
    room.noted("a", |canary| canary.incumbent = None);
    refused(switch("a"), "in use now is the runner beside");
    // Compared before another build took the place.
    room.noted("a", |_| {});
    room.engines.switch("b", None).unwrap();
    refused(switch("a"), "in use now is the build b");
    room.noted("a", |canary| canary.incumbent = Some(b.digest));
    switch("a").unwrap();
    // What is in use needs nothing to stay so.
    switch("a").unwrap();
    assert_eq!(room.in_use(), [Some("a".into()), Some("b".into())]);
    // Where nothing is in use, nothing can have changed.
    let other = Room::new();
    other.add("one", "a").unwrap();
    other.noted("a", |canary| canary.incumbent = Some(Digest([4; 32])));
    let alone = Standing { beside: None, ..standing() };
    other.engines.switch("a", Some(&alone)).unwrap();
}

#[test]
fn a_canary_speaks_for_its_model_and_its_prompts() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    room.noted("a", |_| {});
    for model in [None, Some(Digest([9; 32]))] {
        let other = Standing { model, ..standing() };
        refused(room.engines.switch("a", Some(&other)), "small is not the model any more");
    }
    for prompts in [None, Some(Digest([9; 32]))] {
        let other = Standing { prompts, ..standing() };
        refused(room.engines.switch("a", Some(&other)), "prompts of its last canary have changed");
    }
    room.noted("a", |canary| canary.prompts_digest = None);
    let gone = Standing { prompts: None, ..standing() };
    refused(room.engines.switch("a", Some(&gone)), "have changed: built-in");
    assert_eq!(room.in_use(), [None, None]);
}

#[test]
fn a_build_of_another_version_is_never_started() {
    let room = Room::new();
    let old = BuildFacts { wire: wire::VERSION - 1, ..facts() };
    let staged = room.engines.stage(&room.program("one")).unwrap();
    staged.keep(Some("old".to_owned()), (old, String::new())).unwrap();
    let want = format!("speaks version {} and this program {}", wire::VERSION - 1, wire::VERSION);
    refused(room.engines.open("old"), &want);
    refused(room.engines.switch("old", None), &want);
    refused(room.engines.lease("old"), &want);
    assert_eq!(room.in_use(), [None, None]);
    room.engines.remove("old").unwrap();
}

#[test]
fn what_is_compared_is_not_removed() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    let leases = [room.engines.lease("a").unwrap(), room.engines.lease("a").unwrap()];
    for lease in leases {
        refused(room.engines.remove("a"), "being compared");
        assert!(lease.path.exists());
    }
    room.engines.remove("a").unwrap();
    refused(room.engines.lease("a"), "no build of the runner is named");
}

#[test]
fn a_change_waits_for_another() {
    let mut room = Room::new();
    room.engines.patience = Duration::from_secs(60);
    room.add("one", "a").unwrap();
    let staged = room.engines.stage(&room.program("two")).unwrap();
    let noting = thread::spawn({
        let (engines, digest) =
            (room.engines.clone(), room.engines.read().unwrap().builds["a"].digest);
        move || engines.note("a", digest, passed())
    });
    // However long it takes until it waits: nothing can be noted before.
    thread::sleep(2 * LOOK_EVERY);
    assert_eq!(room.engines.read().unwrap().builds["a"].canary, None);
    drop(staged);
    noting.join().unwrap().unwrap();
    assert_eq!(room.engines.read().unwrap().builds["a"].canary, Some(passed()));
}

#[test]
fn a_runner_outside_has_the_content_that_it_would_have_here() {
    let room = Room::new();
    let program = room.program("one");
    let outside = room.engines.content(&program).unwrap();
    assert_eq!(room.add("one", "a").unwrap().1.digest, outside);
    fs::write(program.with_file_name("libllama.so"), "x").unwrap();
    assert_ne!(room.engines.content(&program).unwrap(), outside);
    refused(room.engines.content(Path::new("/nowhere/runner")), "no runner");
}

#[test]
fn a_rollback_returns_to_the_one_before() {
    let room = Room::new();
    refused(room.engines.rollback(), "nothing to roll back");
    room.add("one", "a").unwrap();
    room.add("two", "b").unwrap();
    room.engines.switch("a", None).unwrap();
    room.engines.switch("b", None).unwrap();
    refused(room.engines.remove("b"), "in use and stays");
    refused(room.engines.remove("a"), "the one before and stays");
    room.engines.rollback().unwrap();
    assert_eq!(room.in_use(), [Some("a".into()), Some("b".into())]);
    room.engines.rollback().unwrap();
    assert_eq!(room.in_use(), [Some("b".into()), Some("a".into())]);
    overwrite(&room.file("a"), b"broken");
    refused(room.engines.rollback(), "is not what was added");
    room.add("three", "c").unwrap();
    let folder = room.file("c");
    room.engines.remove("c").unwrap();
    assert!(!folder.exists());
    refused(room.engines.remove("c"), "no build of the runner is named");
}

#[test]
fn the_first_build_rolls_back_to_the_runner_beside_the_program() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    room.engines.switch("a", None).unwrap();
    room.engines.rollback().unwrap();
    assert_eq!(room.in_use(), [None, Some("a".into())]);
    refused(room.engines.rollback(), "nothing to roll back");
}

#[test]
fn a_lock_file_that_is_gone_is_an_error_where_there_are_builds() {
    let room = Room::new();
    assert_eq!(room.engines.read().unwrap(), EngineLock::default());
    room.add("one", "one").unwrap();
    fs::remove_file(room.engines.lock_file()).unwrap();
    refused(room.engines.read(), "it is not there, and builds are");
    refused(room.add("two", "two"), "it is not there, and builds are");
    assert_eq!(fs::read_dir(room.engines.builds()).unwrap().count(), 1, "nothing is swept up");
}

/// As the first program wrote it, with all that it had.
const FIRST: &str = r#"# Which builds of the runner are here and which is in use. Written by `tieline engine`.

version = 1
current = "a"

[builds.a]
digest = "sha256:0101010101010101010101010101010101010101010101010101010101010101"
bytes = 10
runner = "0.1.0"
llama_cpp = "b1 (x)"
wire = 6
kernels = ["AVX2"]
devices = ["CPU"]
added = "2026-11-28T00:00:00Z"

[builds.a.canary]
passed = true
at = "2026-11-28T00:00:00Z"
processor = "One"
model = "sha256:0101010101010101010101010101010101010101010101010101010101010101"
against = "the runner beside the program"
rounds = 3
failed = []

[builds.a.canary.figures]
kl_nats = 0.25
"#;

#[test]
fn a_lock_file_of_the_first_version_is_read_and_becomes_one_of_this() {
    let room = Room::new();
    fs::create_dir_all(&room.engines.root).unwrap();
    fs::write(room.engines.lock_file(), FIRST).unwrap();
    let lock = room.engines.read().unwrap();
    let canary = lock.builds["a"].canary.as_ref().unwrap();
    assert_eq!((lock.current.as_deref(), canary.figures["kl_nats"]), (Some("a"), 0.25));
    assert!(canary.prompts_digest.is_none() && canary.incumbent.is_none());
    assert!(canary.limits.is_empty());
    // What it cannot say it does not speak for.
    let why = fit::unfit(&lock, "a", &standing());
    assert!(why.is_some_and(|why| why.contains("canary")));
    room.add("two", "b").unwrap();
    let after = fs::read_to_string(room.engines.lock_file()).unwrap();
    assert!(after.contains("version = 2\n"), "{after}");
    let again = room.engines.read().unwrap();
    assert_eq!((&again.builds["a"], again.current), (&lock.builds["a"], lock.current));
}

/// What the program that knew version 1 alone made of a file: it looked at the keys and then at the number.
fn read_by_the_first(text: &str) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "it stands for what is read")]
    struct First {
        version: u32,
        current: Option<String>,
        previous: Option<String>,
        builds: std::collections::BTreeMap<String, toml::Value>,
    }
    let first: First = toml::from_str(text).map_err(|error| error.to_string())?;
    match first.version {
        1 => Ok(()),
        other => Err(format!("it is of version {other}, and this program knows 1")),
    }
}

#[test]
fn a_program_of_the_first_version_refuses_what_this_one_writes() {
    read_by_the_first(FIRST).unwrap();
    let room = Room::new();
    room.add("one", "a").unwrap();
    let written = fs::read_to_string(room.engines.lock_file()).unwrap();
    let refused = read_by_the_first(&written).unwrap_err();
    assert_eq!(refused, "it is of version 2, and this program knows 1");
}

#[test]
fn a_damaged_lock_file_is_an_error_and_stays_as_it_is() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    let path = room.engines.lock_file();
    let good = fs::read_to_string(&path).unwrap();
    assert!(good.starts_with("# Which builds") && good.contains("[builds.a]"), "{good}");
    let dangling = good.replace("version = 2", "version = 2\ncurrent = \"gone\"");
    let older = good.replace("version = 2", "version = 0");
    let unknown = good.replace("version = 2", "version = 2\nsurprise = 1");
    let within = good.replace("[builds.a]", "[builds.a]\nsurprise = 1");
    // Whatever else it has that nobody knows here.
    let newer = unknown.replace("version = 2", "version = 3");
    let cases = [
        ("version = ", "TOML"),
        (&dangling, "names the build gone"),
        (&older, "of version 0, which there never was"),
        (&unknown, "surprise"),
        (&within, "surprise"),
        (&newer, "is of version 3, and this program reads no newer one than 2"),
    ];
    for (bad, want) in cases {
        fs::write(&path, bad).unwrap();
        refused(room.engines.read(), want);
        refused(room.engines.open("a"), want);
        refused(room.add("two", "b"), want);
        refused(room.engines.switch("a", None), want);
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    fs::write(&path, good).unwrap();
    room.engines.open("a").unwrap();
}
