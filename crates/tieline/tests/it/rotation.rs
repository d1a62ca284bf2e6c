//! Vendors' keys that change while the daemon runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use testkit::vendor::{Script, Vendor};
use tokio::runtime::Runtime;

use super::daemon::Daemon;
use super::home::Home;
use super::without_runner::program;

const POLICY: &str = r#"
[backends.cloud]
protocol = "openai"
url = "URL/v1"
zone = "cloud"
key = KEY
models.big = { context = 100_000 }

[[rule]]
name = "work"
class = "any"
zone = "cloud"
as = "as-is"
"#;

/// A daemon, a vendor that answers any key, and the folder that holds keys.
struct Door {
    daemon: Daemon,
    vendor: Vendor,
    folder: PathBuf,
    _runtime: Runtime,
    _home: Home,
}

impl Door {
    /// `ready` makes the folder's first state. A system's store of secrets that says what its file `kept` says is on
    /// the path; it is locked where there is none.
    fn open(key: &str, ready: impl Fn(&Path)) -> Self {
        let home = Home::empty();
        fs::create_dir_all(home.path()).unwrap();
        let folder = home.path().with_file_name("keys");
        fs::create_dir_all(&folder).unwrap();
        ready(&folder);
        let kept = folder.join("kept");
        let store = folder.join("secret-tool");
        fs::write(&store, format!("#!/bin/sh\ncat {}\n", kept.display())).unwrap();
        fs::set_permissions(&store, fs::Permissions::from_mode(0o755)).unwrap();
        let runtime = Runtime::new().unwrap();
        let vendor = runtime.block_on(Vendor::start(Script::text(&["bonjour"])));
        let key = key.replace("FOLDER", folder.to_str().unwrap());
        let policy = POLICY.replace("URL", &vendor.url).replace("KEY", &key);
        let policy = home.file("policy.toml", policy);
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let daemon = Daemon::bare_with(&home, &program(&home), &policy, &[("PATH", path.as_str())]);
        Self { daemon, vendor, folder, _runtime: runtime, _home: home }
    }

    /// The key that the vendor is asked with now; `None`: it is not asked.
    fn key(&self) -> Option<String> {
        let body =
            json!({ "model": "cloud/big", "messages": [{ "role": "user", "content": "hi" }] });
        let before = self.vendor.captured().len();
        self.daemon.post("/v1/chat/completions", &body);
        let captured = self.vendor.captured();
        let said = captured.get(before)?.header("authorization")?;
        Some(said.trim_start_matches("Bearer ").to_owned())
    }

    /// Waits until it is asked with this key.
    fn wait_for(&self, key: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.key().as_deref() != Some(key) {
            assert!(Instant::now() < deadline, "{key} is not used");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn write(path: &Path, key: &str, mode: u32) {
    fs::write(path, key).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_file_that_changes_is_read_again() {
    let source = r#"{ file = "FOLDER/key" }"#;
    let door = Door::open(source, |folder| write(&folder.join("key"), "sk-old", 0o644));
    // Others may read it: the backend is left out, until nobody may.
    assert_eq!(door.key(), None);
    write(&door.folder.join("key"), "sk-old", 0o600);
    door.wait_for("sk-old");
    // In place, and by another file in its place, as mounts of secrets do.
    write(&door.folder.join("key"), "sk-new", 0o600);
    door.wait_for("sk-new");
    write(&door.folder.join("next"), "sk-far", 0o600);
    fs::rename(door.folder.join("next"), door.folder.join("key")).unwrap();
    door.wait_for("sk-far");
    let said = door.daemon.end();
    assert!(said.contains("a backend is left out") && !said.contains("sk-"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_store_of_secrets_is_asked_again_while_it_is_locked_and_on_a_hang_up() {
    let door = Door::open(r#"{ keyring = "me" }"#, |_| ());
    assert_eq!(door.key(), None);
    // Unlocked: found without anybody saying so.
    write(&door.folder.join("kept"), "sk-old", 0o600);
    door.wait_for("sk-old");
    // Another key in it is seen by nobody who is not told.
    write(&door.folder.join("kept"), "sk-new", 0o600);
    assert_eq!(door.key().as_deref(), Some("sk-old"));
    door.daemon.signal(Signal::HUP);
    door.wait_for("sk-new");
    door.daemon.end();
}
