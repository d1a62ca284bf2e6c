//! Files that callers send, and the names that they get.

use tieline_store::{
    NameError, Overlay, PullError, Pulled, Store, Trust, Tuning, UploadError, UploadLimits,
};
use tieline_types::{Bytes, Digest, Hint};

use crate::world::{World, assert_blobs_are_true, blobs, digest, model, reference, run};

fn limits(most: u64) -> UploadLimits {
    UploadLimits { most: Bytes(most), announced: None, tuning: Tuning::default() }
}

/// Sends bytes in pieces under a digest.
fn send(
    store: &Store,
    who: &str,
    said: Digest,
    bytes: &[u8],
    most: u64,
) -> Result<(), UploadError> {
    run(async {
        let mut upload = store.upload(who, said, limits(most)).await?;
        for piece in bytes.chunks(10_000) {
            upload.write(piece).await?;
        }
        upload.finish().await
    })
}

fn name(world: &mut World, who: &str, said: Digest, name: &str) -> Result<Pulled, PullError> {
    world.name = Some(name.to_owned());
    run(world.store.name_upload(who, said, world.options(), None))
}

fn waiting(store: &Store) -> usize {
    std::fs::read_dir(store.root().join("uploads")).map_or(usize::MAX, Iterator::count)
}

#[test]
fn an_upload_becomes_a_model_once_it_is_named() {
    let mut world = World::new();
    let bytes = model(128_000);
    let said = digest(&bytes);
    assert!(!world.store.has_upload("k", said));
    send(&world.store, "k", said, &bytes, 1 << 20).unwrap();
    assert!(world.store.has_upload("k", said));
    assert_eq!(world.store.list().unwrap(), []);
    // It waits through a restart.
    let again = Store::open(world.store.root()).unwrap();
    assert!(again.has_upload("k", said));

    let pulled = name(&mut world, "k", said, "Mine").unwrap();
    assert_eq!((pulled.model.name.as_str(), pulled.model.digest), ("mine", said));
    assert_eq!((pulled.model.source.as_str(), pulled.model.trust), ("upload", Trust::Uploaded));
    let file = world.store.open_model(&pulled.model).unwrap();
    assert_eq!(std::fs::read(file.path).unwrap(), bytes);
    assert_blobs_are_true(world.store.root());
    assert_eq!((waiting(&world.store), blobs(world.store.root()).len()), (0, 1));
    assert!(matches!(name(&mut world, "k", said, "two"), Err(PullError::UnknownDigest { .. })));
}

fn pirate(name: &str) -> Overlay {
    Overlay {
        name: name.to_owned(),
        base: name.to_owned(),
        system: Some("Arr.".into()),
        template: None,
        licence: None,
        parameters: "{}".to_owned(),
        messages: "[]".into(),
        changed_at_unix_s: 1,
    }
}

#[test]
fn a_model_and_what_is_put_before_it_come_together_or_not_at_all() {
    let mut world = World::new();
    let bytes = model(128_000);
    let said = digest(&bytes);
    send(&world.store, "k", said, &bytes, 1 << 20).unwrap();
    let database = world.store.root().join("store.sqlite");
    let edit =
        |sql: &str| rusqlite::Connection::open(&database).unwrap().execute_batch(sql).unwrap();
    // As a kill between the two would leave it, were they two.
    edit("CREATE TRIGGER broken BEFORE INSERT ON overlays BEGIN SELECT RAISE(ABORT, 'no'); END");
    world.name = Some("mine".to_owned());
    let overlay = pirate("mine");
    let named = run(world.store.name_upload("k", said, world.options(), Some(&overlay)));
    assert!(matches!(named, Err(PullError::Db(_))), "{named:?}");
    assert_eq!(world.store.list().unwrap(), []);
    edit("DROP TRIGGER broken");
    run(world.store.name_upload("k", said, world.options(), Some(&overlay))).unwrap();
    assert_eq!(world.store.overlay("mine").unwrap(), Some(overlay.clone()));

    // The same of a second name for bytes that are here.
    edit("CREATE TRIGGER broken BEFORE INSERT ON overlays BEGIN SELECT RAISE(ABORT, 'no'); END");
    let second = pirate("second");
    assert!(world.store.name_digest(said, "second", Some(&second)).is_err());
    assert_eq!(world.store.list().unwrap().len(), 1);
    edit("DROP TRIGGER broken");
    world.store.name_digest(said, "second", Some(&second)).unwrap();
    assert_eq!(world.store.overlay("second").unwrap(), Some(second));
    world.store.name_digest(said, "second", None).unwrap();
    assert_eq!(world.store.overlay("second").unwrap(), None);
    assert_eq!(world.store.overlay("mine").unwrap(), Some(overlay));
}

#[test]
fn an_upload_whose_folder_was_moved_away_marks_and_clears_nothing_of_anothers() {
    let world = World::new();
    let bytes = model(128_000);
    let said = digest(&bytes);
    run(async {
        let mut upload = world.store.upload("k", said, limits(1 << 20)).await.unwrap();
        upload.write(&bytes).await.unwrap();
        let place = waits_at(&world.store).unwrap();
        std::fs::rename(&place, world.store.root().join("elsewhere")).unwrap();
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("data"), b"another's").unwrap();
        let error = upload.finish().await.unwrap_err();
        assert!(matches!(error, UploadError::Stopped), "{error}");
        assert!(!world.store.has_upload("k", said));
        assert_eq!(std::fs::read(place.join("data")).unwrap(), b"another's");
    });
}

fn waits_at(store: &Store) -> Option<std::path::PathBuf> {
    let mut uploads = std::fs::read_dir(store.root().join("uploads")).ok()?;
    Some(uploads.next()?.ok()?.path())
}

#[test]
fn what_died_between_the_move_and_the_name_gets_its_name() {
    let mut world = World::new();
    let bytes = model(128_000);
    let said = digest(&bytes);
    send(&world.store, "", said, &bytes, 1 << 20).unwrap();
    // As a kill leaves it: the bytes are at their place, and still said to wait.
    let place = world.store.root().join("blobs/sha256").join(&said.hex()[..2]).join(said.hex());
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::rename(waits_at(&world.store).unwrap().join("data"), place).unwrap();
    let pulled = name(&mut world, "", said, "mine").unwrap();
    assert_eq!(pulled.model.digest, said);
    assert_eq!((waiting(&world.store), blobs(world.store.root()).len()), (0, 1));
}

#[test]
fn what_the_disk_lost_may_come_again() {
    let mut world = World::new();
    let bytes = model(128_000);
    let said = digest(&bytes);
    send(&world.store, "", said, &bytes, 1 << 20).unwrap();
    std::fs::write(waits_at(&world.store).unwrap().join("data"), &bytes[..100]).unwrap();
    name(&mut world, "", said, "mine").unwrap_err();
    assert!(!world.store.has_upload("", said));
    send(&world.store, "", said, &bytes, 1 << 20).unwrap();
    name(&mut world, "", said, "mine").unwrap();
}

#[test]
fn what_waited_long_makes_room_while_the_store_is_open() {
    let world = World::new();
    let (one, two) = (model(128_000), model(64_000));
    let most = one.len() as u64;
    send(&world.store, "gone", digest(&one), &one, most).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(25 * 3600);
    let folder = waits_at(&world.store).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(old).unwrap();
    }
    std::fs::File::open(&folder).unwrap().set_modified(old).unwrap();
    send(&world.store, "", digest(&two), &two, most).unwrap();
    assert!(!world.store.has_upload("gone", digest(&one)));
}

#[test]
fn the_same_bytes_under_two_names_lie_there_once() {
    let mut world = World::new();
    let bytes = model(128_000);
    for model in ["one", "two"] {
        send(&world.store, "", digest(&bytes), &bytes, 1 << 20).unwrap();
        name(&mut world, "", digest(&bytes), model).unwrap();
    }
    assert_eq!(world.store.list().unwrap().len(), 2);
    assert_eq!((waiting(&world.store), blobs(world.store.root()).len()), (0, 1));
}

#[test]
fn what_one_sends_another_does_not_name() {
    let mut world = World::new();
    let bytes = model(128_000);
    send(&world.store, "one", digest(&bytes), &bytes, 1 << 20).unwrap();
    assert!(!world.store.has_upload("other", digest(&bytes)));
    let error = name(&mut world, "other", digest(&bytes), "mine").unwrap_err();
    assert!(matches!(error, PullError::UnknownDigest { .. }), "{error}");
    assert_eq!(world.store.list().unwrap(), []);
}

#[test]
fn what_is_wrong_leaves_nothing() {
    let world = World::new();
    let bytes = model(128_000);
    let other = digest(b"other");
    let error = send(&world.store, "", other, &bytes, 1 << 20).unwrap_err();
    assert!(matches!(error, UploadError::WrongDigest { .. }), "{error}");
    let text = b"no model at all".repeat(1000);
    let error = send(&world.store, "", digest(&text), &text, 1 << 20).unwrap_err();
    assert!(matches!(error, UploadError::Gguf(_)), "{error}");
    let short = &bytes[..bytes.len() / 2];
    let error = send(&world.store, "", digest(short), short, 1 << 20).unwrap_err();
    assert!(matches!(error, UploadError::Gguf(_)), "{error}");
    run(async {
        let mut upload = world.store.upload("", other, limits(1 << 20)).await.unwrap();
        upload.write(&bytes).await.unwrap();
        assert_eq!(waiting(&world.store), 1);
    });
    assert_eq!((waiting(&world.store), blobs(world.store.root()).len()), (0, 0));
}

#[test]
fn uploads_without_a_name_are_bounded_together() {
    let world = World::new();
    let (one, two) = (model(128_000), model(64_000));
    let most = one.len() as u64;
    let error = send(&world.store, "", digest(&one), &one, most - 1).unwrap_err();
    assert!(matches!(error, UploadError::TooLarge { .. }), "{error}");
    assert!(error.hint().unwrap().contains("/api/create"));
    send(&world.store, "", digest(&one), &one, most).unwrap();
    let error = send(&world.store, "", digest(&two), &two, most).unwrap_err();
    assert!(matches!(error, UploadError::TooLarge { .. }), "{error}");
    // The same file again takes no more than it took.
    send(&world.store, "", digest(&one), &one, most).unwrap();
    let announced = UploadLimits { announced: Some(Bytes(most + 1)), ..limits(most) };
    let begun = run(world.store.upload("x", digest(&two), announced));
    assert!(matches!(begun.unwrap_err(), UploadError::TooLarge { .. }));
    assert_eq!(waiting(&world.store), 1);
}

#[test]
fn a_file_is_on_its_way_once() {
    let world = World::new();
    let said = digest(b"x");
    run(async {
        let first = world.store.upload("", said, limits(100)).await.unwrap();
        let second = world.store.upload("", said, limits(100)).await;
        assert!(matches!(second.unwrap_err(), UploadError::Busy { .. }));
        drop(first);
        world.store.upload("", said, limits(100)).await.unwrap();
    });
}

#[test]
fn what_is_put_before_a_model_of_its_name_goes_with_it() {
    let mut world = World::new();
    let bytes = model(128_000);
    send(&world.store, "", digest(&bytes), &bytes, 1 << 20).unwrap();
    name(&mut world, "", digest(&bytes), "mine").unwrap();
    let overlay = Overlay {
        name: "mine".to_owned(),
        base: "mine".to_owned(),
        system: Some("Be brief.".into()),
        template: None,
        licence: None,
        parameters: "{}".to_owned(),
        messages: "[]".into(),
        changed_at_unix_s: 7,
    };
    world.store.keep_overlay(&overlay).unwrap();
    world.store.copy(&reference("mine"), "yours").unwrap();
    // What was made of it is put before nothing that is there already.
    let made = Overlay { name: "made".to_owned(), ..overlay.clone() };
    world.store.keep_overlay(&made).unwrap();
    for taken in ["mine", "yours"] {
        let error = world.store.copy(&reference("made"), taken).unwrap_err();
        assert!(matches!(error, NameError::Taken { .. }), "{error}");
    }
    assert!(world.store.remove_overlay("made").unwrap());
    world.store.remove(&reference("mine")).unwrap();
    assert_eq!(world.store.overlay("mine").unwrap(), None);
    let copied = Overlay { name: "yours".to_owned(), base: "yours".to_owned(), ..overlay };
    assert_eq!(world.store.overlay("yours").unwrap(), Some(copied));
    assert_eq!(world.store.list().unwrap()[0].name, "yours");
    let removed = world.store.remove(&reference("yours")).unwrap();
    assert!(removed.freed.0 > 0);
    assert_eq!(world.store.overlays().unwrap(), []);
}
