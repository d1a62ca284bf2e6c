//! A disk that is full, and one that may not be written.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use tieline_store::{PullError, StorageError, Store};
use tieline_types::Hint;

use crate::probe::Probe;
use crate::server::{Server, file};
use crate::world::{World, blobs, digest, model};

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A small disk in memory.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path, size: &str) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let option = format!("size={size},mode=0700");
        mount(&["-t", "tmpfs", "-o", &option, "tmpfs"], at).then_some(Self(at))
    }

    fn grow(&self, size: &str) {
        assert!(mount(&["-o", &format!("remount,size={size}"), "tmpfs"], self.0));
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l".as_ref(), self.0]).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    is_root()
        && Command::new("mount").args(arguments).arg(at).status().is_ok_and(|end| end.success())
}

#[test]
fn a_full_disk_keeps_what_is_verified() {
    let mut world = World::new();
    let at = world.folder.path().join("small");
    let Some(disk) = Mount::new(&at, "4m") else {
        println!("SKIPPED: a small disk needs root and mount");
        return;
    };
    world.store = Store::open(&at.join("store")).unwrap();
    let body = model(8 * 1024 * 1024);
    let (served, want) = (body.clone(), digest(&body));
    let server = Server::start(move |asked| {
        let mut reply = file(asked, &served, "\"1\"");
        if asked.path == "/unknown-length" {
            // Without a length nobody can see beforehand that it does not fit.
            reply.declared = Some(None);
        }
        reply
    });
    let error = world.pull(&server.url("/a.gguf")).unwrap_err();
    assert!(matches!(error, PullError::Storage(StorageError::NoRoom { .. })), "{error}");
    assert!(error.to_string().starts_with("not enough space in "), "{error}");
    assert_eq!(error.hint().unwrap(), "free some space, or use another disk");
    assert!(server.sent() < body.len() as u64);

    let url = server.url("/unknown-length");
    let error = world.pull(&url).unwrap_err();
    assert!(matches!(error, PullError::Storage(StorageError::Full { .. })), "{error}");
    assert!(error.hint().unwrap().contains("it goes on where it stopped"));
    assert!(blobs(world.store.root()).is_empty());

    disk.grow("32m");
    assert_eq!(world.pull(&url).unwrap().model.digest, want);
    assert!(world.events.resumed_at().is_some_and(|at| at > 2 * 1024 * 1024));
    // Everything of the mount is closed before it goes.
    world.store = Store::open(&world.folder.path().join("store")).unwrap();
}

#[test]
fn no_permission_is_named() {
    let server = Server::start(|asked| file(asked, &model(1024), "\"1\""));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    Store::open(&root).unwrap();
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(folder.path(), 0o755);
    if is_root() {
        give_away(&root);
    }
    set(&root.join("ingest"), 0o500);
    let probe = |root: &Path| {
        let probe = Probe::new(root, &server.url("/a.gguf"));
        if is_root() { probe.unprivileged() } else { probe }
    };
    let said = probe(&root).run();
    assert!(said.contains("ERR no permission to write to"), "{said}");
    set(folder.path(), 0o555);
    let said = probe(&folder.path().join("other")).run();
    assert!(said.contains("ERR open: cannot make the store's folders in"), "{said}");
    set(folder.path(), 0o755);
    assert!(server.asked().is_empty());
}

fn give_away(path: &Path) {
    std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).unwrap();
    if path.is_dir() {
        std::fs::read_dir(path).unwrap().for_each(|entry| give_away(&entry.unwrap().path()));
    }
}
