//! Models from files of this machine, and what damage on the disk does.

use std::os::unix::fs::PermissionsExt;

use tieline_store::gguf::Value;
use tieline_store::gguf::write::Draft;
use tieline_store::{Overlay, Trust, VerifyError};
use tieline_types::{Bytes, Hint};

use crate::world::{World, assert_blobs_are_true, blobs, digest, model, reference};

fn write(world: &World, name: &str, bytes: &[u8]) -> String {
    let path = world.folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    format!("file:{}", path.display())
}

#[test]
fn a_file_is_copied() {
    let world = World::new();
    let body = model(300_000);
    let text = write(&world, "My Model.gguf", &body);
    let pulled = world.pull(&text).unwrap();
    assert_eq!(pulled.model.name, "my-model");
    assert_eq!(pulled.model.digest, digest(&body));
    assert_eq!(world.store.find(&reference(&text)).unwrap(), Some(pulled.model.clone()));
    let mode = std::fs::metadata(&blobs(world.store.root())[0]).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o400);
    let mode = std::fs::metadata(world.store.root()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    // Once more: the same bytes, one file.
    world.pull(&text).unwrap();
    assert_eq!(blobs(world.store.root()).len(), 1);
}

#[test]
fn bad_files_are_told_apart() {
    let world = World::new();
    let check = |text: &str, want: &str| {
        let error = world.refused(text);
        assert!(error.contains(want), "{error}");
    };
    check(&write(&world, "empty.gguf", b""), "it is empty");
    check(&format!("file:{}", world.folder.path().display()), "it is a folder, not a file");
    check("file:/no/such/file.gguf", "there is no such file");
    check("file:/dev/null", "it is no plain file");
    check(&write(&world, "zip.gguf", b"PK\x03\x04"), "it is no GGUF model");
    let body = model(300_000);
    check(&write(&world, "cut.gguf", &body[..200_000]), "it is truncated");
}

/// Something that is put before a model of that name.
fn own_overlay(name: &str) -> Overlay {
    Overlay {
        name: name.to_owned(),
        base: name.to_owned(),
        system: Some("Be brief.".to_owned().into()),
        template: None,
        licence: None,
        parameters: "{}".to_owned(),
        messages: "[]".to_owned().into(),
        changed_at_unix_s: 1,
    }
}

#[test]
fn a_part_of_a_model_is_not_kept() {
    let world = World::new();
    let mut draft = Draft::sample(128_000);
    draft.metadata.push(("split.count".to_owned(), Value::U16(2)));
    let text = write(&world, "first.gguf", &draft.bytes());
    let error = world.refused(&text);
    assert!(error.contains("the file is one of several parts"), "{error}");
    let hint = world.pull(&text).unwrap_err().hint().unwrap();
    assert!(hint.contains("gguf-split --merge"), "{hint}");
    // One of one is whole.
    let at = draft.metadata.len() - 1;
    draft.metadata[at].1 = Value::U16(1);
    world.pull(&write(&world, "only.gguf", &draft.bytes())).unwrap();
}

#[test]
fn a_changed_file_is_noticed_and_healed() {
    let world = World::new();
    let body = model(300_000);
    let text = write(&world, "a.gguf", &body);
    let model = world.pull(&text).unwrap().model;
    let overlay = own_overlay("a");
    world.store.keep_overlay(&overlay).unwrap();
    let blob = blobs(world.store.root()).remove(0);
    std::fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut bad = body.clone();
    bad[250_000] ^= 1;
    std::fs::write(&blob, &bad).unwrap();
    let error = world.store.open_model(&model).unwrap_err();
    assert!(matches!(error, VerifyError::Mismatch { .. }), "{error}");
    assert!(error.to_string().contains(&digest(&bad).to_string()));
    assert_eq!(error.hint().unwrap(), "pull \"a\" again");
    assert_eq!(world.store.list().unwrap()[0].trust, Trust::Mismatch);
    // It stays refused, though it looks the same from outside as at the last hash.
    assert!(world.store.open_model(&model).is_err());
    // Its name is enough, and what was put before it stays.
    world.pull("a").unwrap();
    world.store.open_model(&model).unwrap();
    assert_ne!(world.store.list().unwrap()[0].trust, Trust::Mismatch);
    assert_eq!(world.store.overlay("a").unwrap(), Some(overlay));
    assert_blobs_are_true(world.store.root());
}

#[test]
fn a_file_that_only_looks_changed_is_hashed_and_used() {
    let world = World::new();
    let model = world.pull(&write(&world, "a.gguf", &model(300_000))).unwrap().model;
    let blob = blobs(world.store.root()).remove(0);
    let copy = blob.with_extension("copy");
    std::fs::copy(&blob, &copy).unwrap();
    std::fs::rename(&copy, &blob).unwrap();
    world.store.open_model(&model).unwrap();
    let mut last = Bytes(0);
    world.store.verify(&model, &mut |done| last = done).unwrap();
    assert_eq!(last, model.size);
}

#[test]
fn a_missing_file_is_reported_and_comes_back() {
    let world = World::new();
    let text = write(&world, "a.gguf", &model(300_000));
    let model = world.pull(&text).unwrap().model;
    std::fs::remove_file(blobs(world.store.root()).remove(0)).unwrap();
    assert!(world.store.list().unwrap()[0].missing);
    let error = world.store.open_model(&model).unwrap_err();
    assert!(matches!(error, VerifyError::Missing { .. }), "{error}");
    world.pull(&text).unwrap();
    assert!(!world.store.list().unwrap()[0].missing);
}
