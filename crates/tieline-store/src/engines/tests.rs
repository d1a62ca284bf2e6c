use super::*;

const PROCESSOR: &str = "One";

struct Room {
    root: tempfile::TempDir,
    engines: Engines,
}

impl Room {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let engines = Engines { root: root.path().join("engines") };
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

    fn passed(&self, name: &str, passed: bool, processor: &str) {
        let digest = self.engines.read().unwrap().builds[name].digest;
        self.engines.note(name, digest, canary(passed, processor)).unwrap();
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
    BuildFacts { runner: "0.1.0".into(), llama_cpp: "b1 (x)".into(), wire: 5, kernels, devices }
}

fn canary(passed: bool, processor: &str) -> Canary {
    Canary {
        passed,
        at: "2026-11-28T00:00:00Z".into(),
        processor: processor.into(),
        model: Digest([1; 32]),
        against: "the runner beside the program".into(),
        rounds: 3,
        figures: [("kl_nats".to_owned(), 0.25)].into(),
        failed: if passed { Vec::new() } else { vec!["decode".into()] },
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
    refused(room.add("two", "b"), "another program");
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
    refused(room.engines.switch("b", None), "no build of the runner is named \"b\"");
    refused(room.engines.switch("a", Some(PROCESSOR)), "no canary was run");
    room.passed("a", false, PROCESSOR);
    refused(room.engines.switch("a", Some(PROCESSOR)), "failed: decode");
    room.passed("a", true, "Two");
    refused(room.engines.switch("a", Some(PROCESSOR)), "on another processor, Two");
    assert_eq!(room.in_use(), [None, None]);
    room.engines.switch("a", None).unwrap();
    room.passed("a", true, PROCESSOR);
    room.engines.switch("a", Some(PROCESSOR)).unwrap();
    assert_eq!(room.in_use(), [Some("a".into()), None]);
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

#[test]
fn a_damaged_lock_file_is_an_error_and_stays_as_it_is() {
    let room = Room::new();
    room.add("one", "a").unwrap();
    let path = room.engines.lock_file();
    let good = fs::read_to_string(&path).unwrap();
    assert!(good.starts_with("# Which builds") && good.contains("[builds.a]"), "{good}");
    let dangling = good.replace("version = 1", "version = 1\ncurrent = \"gone\"");
    let newer = good.replace("version = 1", "version = 2");
    let unknown = good.replace("version = 1", "version = 1\nsurprise = 1");
    let cases = [
        ("version = ", "TOML"),
        (&dangling, "names the build gone"),
        (&newer, "of version 2"),
        (&unknown, "surprise"),
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
