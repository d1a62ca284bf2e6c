//! Adapters come to a runner at work, and to the one that takes its place.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Signal, kill_process};
use sha2::{Digest as _, Sha256};
use testkit::{Shape, lora};
use tieline_engine::{EngineConfig, LocalModel, Member, Pool, PoolConfig, Runners, probe};
use tieline_types::wire::ADAPTERS;
use tieline_types::{
    Adapter, AdapterFile, Adapters, Backend, Bytes, Digest, ErrorKind, Event, HeldAdapter,
    ModelFile, Prompt, Request, Sampling, Scale, Tokens,
};

use crate::{answer, next, params, pid, until};

async fn base(runner: PathBuf) -> LocalModel {
    start(EngineConfig::new(runner)).await
}

async fn start(config: EngineConfig) -> LocalModel {
    let file = ModelFile { digest: Digest([1; 32]), path: testkit::shape(Shape::Llama) };
    LocalModel::start(config, "tiny".to_owned(), file, params(), |_| {}).await.unwrap()
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> Adapter {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    let digest = Digest(Sha256::digest(bytes).into());
    let file = AdapterFile { path, bytes: Bytes(bytes.len() as u64) };
    Adapter { digest, scale: Scale::FULL, file: Some(file) }
}

fn request(adapters: &[Adapter]) -> Request {
    let words = Shape::Llama.words();
    Request {
        adapters: Adapters::new(adapters.to_vec()).unwrap(),
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(20)),
        ignore_eog: true,
        ..Request::new(Prompt::Tokens((words.start..words.start + 20).collect()))
    }
}

fn endless() -> Request {
    Request { max_tokens: Some(Tokens(400)), ..request(&[]) }
}

#[tokio::test]
async fn adapters_are_brought_once_and_again_after_a_crash() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = put(folder.path(), "one", &lora::adapter(1));
    let two = put(folder.path(), "two", &lora::adapter(2));
    let model = base(runner).await;
    let plain = answer(&model, request(&[])).await.unwrap();
    assert!(model.adapters().borrow().is_empty());
    // They come while another answer goes on.
    let mut other = model.run(endless()).await.unwrap();
    assert!(matches!(next(&mut other).await, Some(Ok(Event::Started(_)))));
    let both = [one.clone(), two.clone()];
    let (with_one, with_both) = tokio::join!(
        answer(&model, request(std::slice::from_ref(&one))),
        answer(&model, request(&both)),
    );
    let (with_one, with_both) = (with_one.unwrap(), with_both.unwrap());
    assert!(plain != with_one && plain != with_both && with_one != with_both);
    drop(other);
    let bytes: Vec<Bytes> = model.adapters().borrow().iter().map(|held| held.bytes).collect();
    let size = Bytes(lora::adapter(1).len() as u64);
    assert_eq!(bytes, [size, size]);
    // Whatever becomes of the file: it is there.
    std::fs::remove_file(&two.file.as_ref().unwrap().path).unwrap();
    assert_eq!(answer(&model, request(&both)).await.unwrap(), with_both);
    let first = pid(&model);
    kill_process(first, Signal::KILL).unwrap();
    let first = first.as_raw_pid().cast_unsigned();
    until("a new runner", || model.pid().is_some_and(|pid| pid != first)).await;
    assert!(model.adapters().borrow().is_empty());
    assert_eq!(answer(&model, request(&[one])).await.unwrap(), with_one);
    let error = answer(&model, request(&[two])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("cannot read the file of the adapter"), "{error}");
    assert_eq!(answer(&model, request(&[])).await.unwrap(), plain);
    model.shutdown().await;
}

/// A file that is mostly zeros, and its digest.
fn put_hollow(folder: &Path, (header, length): (Vec<u8>, u64)) -> Adapter {
    let path = folder.join("hollow");
    let mut file = File::create(&path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(length).unwrap();
    let (mut file, mut hash) = (File::open(&path).unwrap(), Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    while let Some(read) = Some(file.read(&mut buffer).unwrap()).filter(|read| *read > 0) {
        hash.update(&buffer[..read]);
    }
    let file = Some(AdapterFile { path, bytes: Bytes(length) });
    Adapter { digest: Digest(hash.finalize().into()), scale: Scale::FULL, file }
}

/// It is there twice while it is taken in: whole, and in its tensors.
#[tokio::test]
async fn an_adapter_that_takes_more_than_a_runner_may_else_is_allowed_it() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (header, length) = lora::hollow_smollm2_adapter(960);
    let one = put_hollow(folder.path(), (header, length));
    let model = crate::start(EngineConfig::new(runner)).await;
    let runner = model.pid();
    let memory = || probe::process_memory(runner.unwrap()).unwrap();
    let before = memory();
    let most = before.limit.unwrap();
    assert!(2 * length > most.0 - before.allocated.0, "{length} are no more than {before:?}");
    let question = |adapters: &[Adapter]| Request {
        adapters: Adapters::new(adapters.to_vec()).unwrap(),
        max_tokens: Some(Tokens(5)),
        ..crate::question("Hi")
    };
    let plain = answer(&model, question(&[])).await.unwrap();
    assert_eq!(memory().limit, Some(most));
    assert_eq!(answer(&model, question(&[one])).await.unwrap(), plain);
    assert_eq!(model.pid(), runner, "it died of it");
    assert_eq!(memory().limit, Some(Bytes(most.0 + 3 * length)));
    assert!(memory().allocated.0 > before.allocated.0 + length, "{:?}", memory());
    model.shutdown().await;
}

#[tokio::test]
async fn a_crash_on_the_way_is_no_end() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = put(folder.path(), "one", &lora::adapter(1));
    let model = base(runner).await;
    let want = answer(&model, request(std::slice::from_ref(&one))).await.unwrap();
    model.shutdown().await;
    let model = base(testkit::runner().unwrap()).await;
    // Stopped, it takes nothing in: the request waits for its adapter.
    kill_process(pid(&model), Signal::STOP).unwrap();
    let mut stream = model.run(request(&[one])).await.unwrap();
    kill_process(pid(&model), Signal::KILL).unwrap();
    let mut text = String::new();
    while let Some(event) = next(&mut stream).await {
        if let Event::Piece(piece) = event.unwrap() {
            text += piece.text.expose();
        }
    }
    assert_eq!(text, want);
    model.shutdown().await;
}

#[tokio::test]
async fn a_runner_that_stands_still_with_an_adapter_on_its_way_is_replaced() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = put(folder.path(), "one", &lora::adapter(1));
    let stall = Duration::from_secs(2);
    let model = start(EngineConfig { stall, ..EngineConfig::new(runner) }).await;
    let stopped = pid(&model);
    kill_process(stopped, Signal::STOP).unwrap();
    // Nobody else ends it.
    let answer = answer(&model, request(&[one]));
    let said = tokio::time::timeout(Duration::from_secs(60), answer).await.expect("an end");
    assert!(!said.unwrap().is_empty());
    assert_ne!(pid(&model), stopped);
    model.shutdown().await;
}

/// Those that a model's runner holds or that work waits for, once they are so many.
async fn held(model: &LocalModel, count: usize) {
    let mut adapters = model.adapters();
    let wait = adapters.wait_for(|all| all.len() == count);
    let seen = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(seen.is_ok_and(|seen| seen.is_ok()), "never {count} of them");
}

#[tokio::test]
async fn an_adapter_of_cancelled_work_goes_when_that_has_ended() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = put(folder.path(), "one", &lora::adapter(1));
    let model = base(runner).await;
    let with_one = Request { adapters: Adapters::new(vec![one.clone()]).unwrap(), ..endless() };
    let mut stream = model.run(with_one).await.unwrap();
    assert!(matches!(next(&mut stream).await, Some(Ok(Event::Started(_)))));
    held(&model, 1).await;
    // Stopped, so that it is told to drop what the work uses that it has not ended yet.
    kill_process(pid(&model), Signal::STOP).unwrap();
    drop(stream);
    model.shed([one.digest].into());
    // The supervisor has both by the time that it took this in.
    let later = model.run(request(&[])).await.unwrap();
    kill_process(pid(&model), Signal::CONT).unwrap();
    held(&model, 0).await;
    drop(later);
    // What is asked for again comes again, and stays as soon as it may.
    model.shed([].into());
    answer(&model, request(std::slice::from_ref(&one))).await.unwrap();
    held(&model, 1).await;
    model.shutdown().await;
}

#[tokio::test]
async fn no_wish_that_adapters_go_is_lost_where_commands_are_many() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = put(folder.path(), "one", &lora::adapter(1));
    let model = base(runner).await;
    answer(&model, request(std::slice::from_ref(&one))).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..300 {
        streams.push(model.run(request(&[])).await.unwrap());
    }
    // Nobody else runs meanwhile: more is cancelled at once than the supervisor's queue takes.
    drop(streams);
    model.shed([one.digest].into());
    held(&model, 0).await;
    model.shutdown().await;
}

#[tokio::test]
async fn an_adapter_is_told_of_before_it_comes_and_until_nobody_waits_for_it() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = put(folder.path(), "one", &lora::adapter(1));
    let two = put(folder.path(), "two", &lora::adapter(2));
    let model = base(runner).await;
    kill_process(pid(&model), Signal::STOP).unwrap();
    let both = model.run(request(&[one.clone(), two.clone()])).await.unwrap();
    assert_eq!(model.adapters().borrow().len(), 2);
    drop(both);
    // The one on its way comes all the same, and goes.
    model.shed([one.digest, two.digest].into());
    held(&model, 1).await;
    kill_process(pid(&model), Signal::CONT).unwrap();
    held(&model, 0).await;
    model.shutdown().await;
}

/// An adapter whose file gives nothing, once so much of it was read; nobody may write to it, or never opens it.
fn hanging(folder: &Path, bytes: &[u8], given: Option<usize>) -> (Adapter, Option<File>) {
    let path = folder.join("pipe");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
    // For reading too: on Linux that waits for nobody.
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let writer = given.map(|given| {
        let mut writer = open();
        writer.write_all(&bytes[..given]).unwrap();
        writer
    });
    let file = AdapterFile { path, bytes: Bytes(bytes.len() as u64) };
    let digest = Digest(Sha256::digest(bytes).into());
    (Adapter { digest, scale: Scale::FULL, file: Some(file) }, writer)
}

#[tokio::test]
async fn a_file_that_gives_nothing_holds_up_nobody_else() {
    let Some(runner) = testkit::runner() else { return };
    let stall = Duration::from_secs(2);
    let model = start(EngineConfig { stall, ..EngineConfig::new(runner) }).await;
    let before = pid(&model);
    let plain = answer(&model, request(&[])).await.unwrap();
    let bytes = lora::adapter(1);
    // It cannot even be opened; some of it can be read.
    for given in [None, Some(1000)] {
        let folder = tempfile::tempdir().unwrap();
        let good = put(folder.path(), "good", &lora::adapter(2));
        let (hangs, writer) = hanging(folder.path(), &bytes, given);
        let mut waits = model.run(request(std::slice::from_ref(&hangs))).await.unwrap();
        let behind = answer(&model, request(std::slice::from_ref(&good)));
        let beside = async {
            // All of them end, while the one waits.
            for _ in 0..10 {
                assert_eq!(answer(&model, request(&[])).await.unwrap(), plain);
            }
        };
        let (error, behind, ()) = tokio::join!(next(&mut waits), behind, beside);
        let error = error.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(error.to_string().contains("nothing more of it could be read for 2s"), "{error}");
        // Adapters come one at a time: who waited for another got it then.
        assert!(!behind.unwrap().is_empty());
        let held: Vec<Digest> = model.adapters().borrow().iter().map(|one| one.digest).collect();
        assert_eq!(held, [good.digest]);
        // What it gives now is nobody's.
        if let Some(mut writer) = writer {
            writer.write_all(&bytes[1000..]).unwrap();
        }
        let again = put(folder.path(), "again", &bytes);
        assert!(!answer(&model, request(&[again])).await.unwrap().is_empty());
        model.shed(model.adapters().borrow().iter().map(|one| one.digest).collect());
        self::held(&model, 0).await;
        model.shed([].into());
    }
    assert_eq!(pid(&model), before);
    // The thread that waits for the pipe to be opened is waited for by nobody.
    tokio::time::timeout(Duration::from_secs(60), model.shutdown()).await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_an_error_and_no_crash() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = base(runner).await;
    let before = pid(&model);
    let wrong = [
        ("foreign", lora::foreign_adapter(), "does not fit the model (llama"),
        ("narrow", lora::narrow_adapter(), "incorrect shape"),
        ("empty", Vec::new(), "0 B"),
    ];
    for (name, bytes, want) in wrong {
        let adapter = put(folder.path(), name, &bytes);
        let error = answer(&model, request(&[adapter])).await.unwrap_err();
        assert!(error.to_string().contains(want), "{name}: {error}");
    }
    // Another file than was promised.
    let mut changed = put(folder.path(), "changed", &lora::adapter(1));
    changed.digest = Digest([7; 32]);
    let error = answer(&model, request(&[changed])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::BadModel);
    assert!(error.to_string().contains("holds sha256:"), "{error}");
    // More than a runner holds, told before any of it is read.
    let mut large = put(folder.path(), "large", b"x");
    let path = large.file.as_ref().unwrap().path.clone();
    large.file = Some(AdapterFile { path, bytes: Bytes(2 << 30) });
    let error = answer(&model, request(&[large])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
    assert!(error.to_string().contains("2.1 GB"), "{error}");
    assert_eq!(pid(&model), before);
    answer(&model, request(&[])).await.unwrap();
    model.shutdown().await;
}

#[tokio::test]
async fn the_least_used_goes_for_another() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let model = base(runner).await;
    let count = u32::try_from(ADAPTERS).unwrap();
    let all: Vec<Adapter> = (0..=count)
        .map(|seed| put(folder.path(), &seed.to_string(), &lora::adapter(seed)))
        .collect();
    let ask = |at: usize| answer(&model, request(std::slice::from_ref(&all[at])));
    let first = ask(0).await.unwrap();
    for at in 1..ADAPTERS {
        ask(at).await.unwrap();
    }
    ask(0).await.unwrap();
    ask(ADAPTERS).await.unwrap();
    let held: Vec<Digest> = model.adapters().borrow().iter().map(|held| held.digest).collect();
    assert_eq!(held.len(), ADAPTERS);
    assert!(held.contains(&all[0].digest) && !held.contains(&all[1].digest));
    assert_eq!(ask(0).await.unwrap(), first);
    // And comes back.
    ask(1).await.unwrap();
    model.shutdown().await;
}

#[tokio::test]
async fn adapters_that_nobody_uses_go_before_a_model_does() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let one = put(folder.path(), "one", &lora::adapter(1));
    let file =
        |number| ModelFile { digest: Digest([number; 32]), path: testkit::shape(Shape::Llama) };
    let (size, base) = (lora::adapter(1).len() as u64, Bytes(1_000_000));
    let names = ["a", "b"];
    let members = names.map(|name| Member {
        name: name.to_owned(),
        bytes: base,
        devices: <_>::default(),
        pinned: false,
        keep_alive: None,
    });
    let models = names
        .into_iter()
        .zip(1..)
        .map(|(name, number)| (name.to_owned(), (file(number), params())));
    let loader = Arc::new(Runners::new(EngineConfig::new(runner), models.collect()));
    // Both fit, and no adapter beside them.
    let budget = Bytes(2 * base.0 + size - 1);
    let config = PoolConfig { budget, wait: Duration::from_secs(30) };
    let pool = Pool::start(config, members.to_vec(), loader);
    let ask = async |name: &str, adapters: &[Adapter]| {
        let mut stream = pool.run(name, None, request(adapters)).await.unwrap();
        while let Some(event) = next(&mut stream).await {
            event.unwrap();
        }
    };
    ask("a", std::slice::from_ref(&one)).await;
    let overview = pool.overview().await.unwrap();
    assert_eq!(overview.taken, Bytes(base.0 + size));
    assert_eq!(
        overview.members[0].adapters,
        [HeldAdapter { digest: one.digest, bytes: Bytes(size) }]
    );
    ask("b", &[]).await;
    let overview = pool.overview().await.unwrap();
    assert!(overview.evictions.is_empty(), "{:?}", overview.evictions);
    assert_eq!(overview.taken, Bytes(2 * base.0));
    assert!(overview.members.iter().all(|one| one.adapters.is_empty() && one.loads == 1));
    // It comes again where it is asked for, and has a model leave for it as a model has.
    ask("a", &[one]).await;
    let overview = pool.overview().await.unwrap();
    assert_eq!((overview.members[0].adapters.len(), overview.taken), (1, Bytes(base.0 + size)));
    assert_eq!(overview.evictions[0].reason, "an adapter of a needed the room");
    pool.shutdown().await;
}
