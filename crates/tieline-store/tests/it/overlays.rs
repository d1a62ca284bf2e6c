//! Models made of others, and second names.

use tieline_store::{NameError, Overlay, PullError, Store};
use tieline_types::Hint;

use crate::names::world_with;
use crate::world::{blobs, reference};

fn overlay(name: &str) -> Overlay {
    Overlay {
        name: name.to_owned(),
        base: "mine".to_owned(),
        system: Some("Be brief.".into()),
        template: None,
        licence: Some("MIT".to_owned()),
        parameters: r#"{"temperature":0}"#.to_owned(),
        messages: "[]".into(),
        changed_at_unix_s: 7,
    }
}

#[test]
fn an_overlay_is_kept_changed_and_removed() {
    let (world, _) = world_with("mine", 128_000);
    let store = &world.store;
    store.keep_overlay(&overlay("brief")).unwrap();
    assert_eq!(store.overlay("brief").unwrap(), Some(overlay("brief")));
    let changed = Overlay { system: None, ..overlay("brief") };
    store.keep_overlay(&changed).unwrap();
    let again = Store::open(store.root()).unwrap();
    assert_eq!(again.overlays().unwrap(), [changed]);
    assert!(store.remove_overlay("brief").unwrap());
    assert!(!store.remove_overlay("brief").unwrap());
    assert_eq!(store.overlay("brief").unwrap(), None);
}

#[test]
fn names_are_not_taken_from_others() {
    let (mut world, text) = world_with("mine", 128_000);
    world.store.copy(&reference("mine"), "yours").unwrap();
    let error = world.store.keep_overlay(&overlay("yours")).unwrap_err();
    assert!(matches!(error, NameError::Taken { .. }), "{error}");
    assert!(error.hint().unwrap().contains("remove"));
    let error = world.store.keep_overlay(&overlay("../x")).unwrap_err();
    assert!(matches!(error, NameError::Invalid { .. }), "{error}");
    world.store.keep_overlay(&overlay("brief")).unwrap();
    world.name = Some("brief".to_owned());
    assert!(matches!(world.pull(&text), Err(PullError::NameTaken { .. })));
    let error = world.store.copy(&reference("mine"), "brief").unwrap_err();
    assert!(matches!(error, NameError::Taken { .. }), "{error}");
}

#[test]
fn a_second_name_shares_the_bytes() {
    let (world, _) = world_with("mine", 128_000);
    let store = &world.store;
    store.copy(&reference("mine"), "Yours").unwrap();
    store.copy(&reference("mine"), "yours").unwrap();
    let names: Vec<String> = store.list().unwrap().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["mine", "yours"]);
    assert_eq!(blobs(store.root()).len(), 1);
    store.remove(&reference("mine")).unwrap();
    assert!(store.find(&reference("yours")).unwrap().is_some_and(|model| !model.missing));
    let error = store.copy(&reference("nobody"), "x").unwrap_err();
    assert!(matches!(error, NameError::NotFound { .. }), "{error}");
    store.keep_overlay(&Overlay { base: "yours".to_owned(), ..overlay("brief") }).unwrap();
    store.copy(&reference("brief"), "terse").unwrap();
    assert_eq!(store.overlay("terse").unwrap().unwrap().base, "yours");
}
