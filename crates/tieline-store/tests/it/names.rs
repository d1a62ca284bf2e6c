//! Names: finding, sharing, removing.

use tieline_store::{Catalogue, PullError, PullOptions, RemoveError, Store, Trust};
use tieline_types::{Bytes, Hint};

use crate::world::{World, age_blobs, assert_blobs_are_true, blobs, digest, model, reference, run};

/// A world with one model from a file, under `name`.
pub(crate) fn world_with(name: &str, size: u64) -> (World, String) {
    let mut world = World::new();
    let path = world.folder.path().join("a.gguf");
    std::fs::write(&path, model(size)).unwrap();
    world.name = Some(name.to_owned());
    let text = format!("file:{}", path.display());
    world.pull(&text).unwrap();
    (world, text)
}

#[test]
fn a_model_is_found_by_name_digest_and_origin() {
    let (world, text) = world_with("mine", 128_000);
    let want = digest(&model(128_000));
    let found = |text: &str| world.store.find(&reference(text)).unwrap().map(|model| model.name);
    assert_eq!(found("mine").as_deref(), Some("mine"));
    assert_eq!(found(&text).as_deref(), Some("mine"));
    assert_eq!(found(&want.to_string()).as_deref(), Some("mine"));
    assert_eq!(found(&want.hex()[..6]).as_deref(), Some("mine"));
    assert_eq!(found(&want.hex()[..5]), None);
    assert_eq!(found("other"), None);
    let again = Store::open(world.store.root()).unwrap();
    assert_eq!(again.list().unwrap(), world.store.list().unwrap());
}

#[test]
fn two_names_share_one_file() {
    let (mut world, text) = world_with("one", 128_000);
    world.name = Some("two".to_owned());
    world.pull(&text).unwrap();
    assert_eq!(blobs(world.store.root()).len(), 1);
    let removed = world.store.remove(&reference("one")).unwrap();
    assert_eq!((removed.freed, removed.kept_by), (Bytes(0), vec!["two".to_owned()]));
    assert_eq!(blobs(world.store.root()).len(), 1);
    let removed = world.store.remove(&reference("two")).unwrap();
    assert!(removed.freed > Bytes(128_000));
    assert!(blobs(world.store.root()).is_empty());
    let trash = world.store.root().join("trash");
    assert!(std::fs::read_dir(trash).unwrap().next().is_none());
    let error = world.store.remove(&reference("two")).unwrap_err();
    assert_eq!(error.to_string(), "no model \"two\" is installed");
}

#[test]
fn a_model_in_use_is_kept() {
    let (world, _) = world_with("mine", 128_000);
    let model = world.store.find(&reference("mine")).unwrap().unwrap();
    let lease = world.store.lease(&model).unwrap();
    let second = world.store.lease(&model).unwrap();
    let error = world.store.remove(&reference("mine")).unwrap_err();
    assert!(matches!(error, RemoveError::InUse { .. }), "{error}");
    assert!(error.hint().unwrap().contains("stop what runs it"));
    drop((lease, second));
    world.store.remove(&reference("mine")).unwrap();
    assert!(world.store.lease(&model).unwrap_err().to_string().contains("missing"));
}

#[test]
fn a_taken_name_is_not_given_away() {
    let (mut world, _) = world_with("mine", 128_000);
    let path = world.folder.path().join("b.gguf");
    std::fs::write(&path, model(256_000)).unwrap();
    let text = format!("file:{}", path.display());
    let error = world.pull(&text).unwrap_err();
    assert!(matches!(error, PullError::NameTaken { .. }), "{error}");
    world.name = Some("../mine".to_owned());
    assert!(matches!(world.pull(&text), Err(PullError::InvalidName { .. })));
    // A name that nobody chose gives way.
    world.name = Some("b".to_owned());
    world.pull(&text).unwrap();
    let other = world.folder.path().join("x");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("b.gguf"), model(384_000)).unwrap();
    world.name = None;
    let pulled = world.pull(&format!("file:{}", other.join("b.gguf").display())).unwrap();
    assert_eq!(pulled.model.name, format!("b-{}", digest(&model(384_000)).short()));
}

#[test]
fn a_change_is_noticed_under_every_name() {
    let (mut world, text) = world_with("b", 128_000);
    let other = world.folder.path().join("x");
    std::fs::create_dir(&other).unwrap();
    let path = other.join("b.gguf");
    std::fs::write(&path, model(256_000)).unwrap();
    world.name = None;
    let suffixed = format!("file:{}", path.display());
    let name = world.pull(&suffixed).unwrap().model.name;
    assert!(name.starts_with("b-"), "{name}");
    std::fs::write(&path, model(384_000)).unwrap();
    let error = world.pull(&suffixed).unwrap_err();
    assert!(matches!(&error, PullError::Changed { name: found, .. } if *found == name), "{error}");
    std::fs::write(world.folder.path().join("a.gguf"), model(384_000)).unwrap();
    world.name = Some("new".to_owned());
    let error = world.pull(&text).unwrap_err();
    assert!(matches!(error, PullError::Changed { .. }), "{error}");
    assert_eq!(world.store.list().unwrap().len(), 2);
    world.expected = Some(digest(&model(384_000)));
    world.pull(&text).unwrap();
}

/// What is under `text` is another model now; `accepted`: and wanted.
fn update(world: &mut World, text: &str, accepted: bool) -> Result<(), PullError> {
    std::fs::write(world.folder.path().join("a.gguf"), model(256_000)).unwrap();
    world.expected = accepted.then(|| digest(&model(256_000)));
    world.pull(text).map(drop)
}

#[test]
fn an_accepted_update_takes_the_place_of_the_old_file() {
    let (mut world, text) = world_with("mine", 128_000);
    update(&mut world, &text, true).unwrap();
    let root = world.store.root();
    assert_eq!(blobs(root).len(), 1);
    assert_eq!(world.store.unnamed().unwrap(), []);
    assert!(world.store.open_model(&world.store.list().unwrap()[0]).is_ok());
    // The digest of what is gone no longer stands in the way of others that begin like it.
    assert!(world.store.find(&reference(&digest(&model(128_000)).to_string())).unwrap().is_none());
}

#[test]
fn an_update_keeps_the_old_file_for_its_other_names_and_for_who_uses_it() {
    let (mut world, text) = world_with("mine", 128_000);
    world.store.copy(&reference("mine"), "other").unwrap();
    update(&mut world, &text, true).unwrap();
    let root = world.store.root().to_owned();
    assert_eq!(blobs(&root).len(), 2);
    let other = world.store.find(&reference("other")).unwrap().unwrap();
    let lease = world.store.lease(&other).unwrap();
    std::fs::write(world.folder.path().join("a.gguf"), model(256_000)).unwrap();
    world.name = Some("other".to_owned());
    world.pull(&text).unwrap();
    assert_eq!(blobs(&root).len(), 2, "somebody uses it");
    age_blobs(&root);
    assert_eq!(Store::open(&root).unwrap().unnamed().unwrap()[0].digest, other.digest);
    drop(lease);
    assert_eq!(Store::open(&root).unwrap().unnamed().unwrap(), []);
    assert_eq!(blobs(&root).len(), 1);
    assert!(world.store.list().unwrap().iter().all(|model| !model.missing));
}

#[test]
fn a_declined_update_waits_a_day_for_another_answer() {
    let (mut world, text) = world_with("mine", 128_000);
    let error = update(&mut world, &text, false).unwrap_err();
    assert!(matches!(error, PullError::Changed { .. }), "{error}");
    let root = world.store.root().to_owned();
    let waiting = Store::open(&root).unwrap().unnamed().unwrap();
    let size = Bytes(model(256_000).len() as u64);
    assert_eq!((waiting.len(), waiting[0].size), (1, size));
    assert_eq!(waiting[0].digest, digest(&model(256_000)));
    age_blobs(&root);
    assert_eq!(Store::open(&root).unwrap().unnamed().unwrap(), []);
    assert_eq!(blobs(&root).len(), 1);
    assert_eq!(world.store.list().unwrap()[0].digest, digest(&model(128_000)));
}

#[test]
fn a_file_of_another_database_stays() {
    let (mut world, text) = world_with("mine", 128_000);
    let root = world.store.root().to_owned();
    age_blobs(&root);
    for part in ["store.sqlite", "store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(root.join(part));
    }
    world.store = Store::open(&root).unwrap();
    let stays = |store: &Store| {
        let unnamed = store.unnamed().unwrap();
        assert_eq!((unnamed.len(), unnamed[0].goes), (1, false));
        assert_eq!(unnamed[0].digest, digest(&model(128_000)));
    };
    stays(&world.store);
    // Also where something of this one's own goes.
    std::fs::write(world.folder.path().join("a.gguf"), model(384_000)).unwrap();
    world.name = Some("other".to_owned());
    world.pull(&text).unwrap();
    assert!(update(&mut world, &text, false).is_err());
    assert_eq!(blobs(&root).len(), 3);
    age_blobs(&root);
    stays(&Store::open(&root).unwrap());
    assert_eq!(blobs(&root).len(), 2);
}

#[test]
fn a_plain_pull_keeps_a_pinned_model_pinned() {
    let (mut world, text) = world_with("mine", 128_000);
    let trust = |world: &World| world.pull(&text).unwrap().model.trust;
    assert_eq!(trust(&world), Trust::FirstSeen);
    world.expected = Some(digest(&model(128_000)));
    assert_eq!(trust(&world), Trust::Pinned);
    world.expected = None;
    assert_eq!(trust(&world), Trust::Pinned);
}

#[test]
fn an_unknown_name_gets_a_suggestion() {
    let (mut world, _) = world_with("mine", 128_000);
    world.name = None;
    world.catalogue = Catalogue::embedded().unwrap();
    let error = world.pull("smolm2").unwrap_err();
    assert_eq!(error.to_string(), "no model \"smolm2\" in the catalogue");
    assert_eq!(error.hint().unwrap(), "did you mean smollm2?");
    let error = world.pull("nothing-like-it").unwrap_err();
    assert!(error.hint().unwrap().contains("hf:OWNER/REPO"));
    let unknown = digest(b"unknown").to_string();
    assert!(matches!(world.pull(&unknown), Err(PullError::UnknownDigest { .. })));
}

#[test]
fn an_installed_name_is_pulled_again_from_where_it_came() {
    let (mut world, _) = world_with("mine", 128_000);
    world.name = None;
    assert_eq!(world.pull("mine").unwrap().model.name, "mine");
    let by_digest = digest(&model(128_000)).to_string();
    assert!(world.pull(&by_digest).unwrap().already_here);
    std::fs::remove_file(blobs(world.store.root()).remove(0)).unwrap();
    assert!(!world.pull(&by_digest).unwrap().already_here);
}

#[test]
fn a_model_of_the_catalogue_is_pulled_again_by_the_name_that_it_got() {
    let mut world = World::new();
    let path = world.folder.path().join("a.gguf");
    std::fs::write(&path, model(128_000)).unwrap();
    world.catalogue_of(&model(128_000), &[format!("file:{}", path.display())]);
    world.name = Some("mine".to_owned());
    world.pull("m").unwrap();
    world.name = None;
    std::fs::remove_file(blobs(world.store.root()).remove(0)).unwrap();
    let again = world.pull("mine").unwrap().model;
    assert_eq!((again.name.as_str(), again.trust), ("mine", Trust::Pinned));
    assert_eq!(world.store.list().unwrap().len(), 1);
}

#[test]
fn a_model_from_elsewhere_is_pulled_again_from_there_whatever_the_catalogue_has_of_its_name() {
    let (mut world, _) = world_with("m", 128_000);
    world.catalogue_of(&model(256_000), &["file:/nowhere".to_owned()]);
    world.name = None;
    std::fs::remove_file(blobs(world.store.root()).remove(0)).unwrap();
    assert_eq!(world.pull("m").unwrap().model.digest, digest(&model(128_000)));
}

#[test]
fn the_catalogue_and_another_digest_contradict() {
    let mut world = World::new();
    world.catalogue_of(b"x", &["file:/x".to_owned()]);
    world.expected = Some(digest(b"y"));
    assert!(matches!(world.pull("m"), Err(PullError::Contradiction { .. })));
    let error = world.pull(&digest(b"x").to_string()).unwrap_err();
    let want = format!("the reference is {}, but {} was asked for", digest(b"x"), digest(b"y"));
    assert_eq!(error.to_string(), want);
}

#[test]
fn pulls_and_removals_at_once_keep_rows_and_files_together() {
    let (world, text) = world_with("mine", 128_000);
    let root = world.store.root().to_owned();
    let worker = |turn: usize| {
        let store = Store::open(&root).unwrap();
        let name = ["one", "two", "three"][turn];
        for _ in 0..25 {
            let options = PullOptions { name: Some(name.to_owned()), ..world.options() };
            let model = run(store.pull(&reference(&text), options)).unwrap().model;
            let lease = store.lease(&model).unwrap();
            let opened = store.open_model(&model).unwrap();
            assert_eq!(digest(&std::fs::read(opened.path).unwrap()), model.digest);
            drop(lease);
            match store.remove(&reference(name)) {
                Ok(_) | Err(RemoveError::InUse { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    world.store.remove(&reference("mine")).unwrap();
    // Meanwhile the store is opened, and whatever has no name then had its time.
    let sweeper = || {
        for _ in 0..25 {
            age_blobs(&root);
            Store::open(&root).unwrap();
        }
    };
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(sweeper);
        let threads: Vec<_> = (0..3).map(|turn| scope.spawn(move || worker(turn))).collect();
        threads.into_iter().chain([sweeper]).for_each(|thread| thread.join().unwrap());
    });
    assert_blobs_are_true(&root);
    assert!(world.store.list().unwrap().iter().all(|model| !model.missing));
}

#[test]
fn a_fresh_store_may_be_opened_by_many_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    std::thread::scope(|scope| {
        let open = || Store::open(&root).unwrap().list().unwrap().len();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 0));
    });
}
