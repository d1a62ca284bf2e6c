//! A home for a test, and the program in it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::OnceLock;
use std::time::Duration;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// A question whose greedy answer is [`ANSWER`].
pub(crate) const QUESTION: &str = "What is the capital of France?";
pub(crate) const SYSTEM: &str = "You answer in one short English sentence.";
pub(crate) const ANSWER: &str = "The capital of France is Paris.";

/// No command of a test takes longer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder of models and state, and beside it files for the test.
pub(crate) struct Home {
    root: PathBuf,
    _temporary: Option<TempDir>,
}

impl Home {
    /// Without models.
    pub(crate) fn empty() -> Self {
        let temporary = TempDir::new().unwrap();
        let home = Self { root: temporary.path().to_owned(), _temporary: Some(temporary) };
        home.file("catalogue.toml", catalogue());
        home
    }

    /// With one model, for a test that changes its home or counts what runs there.
    pub(crate) fn with_model() -> Self {
        let home = Self::empty();
        home.pull();
        home
    }

    /// With one model, for tests that only read. Kept between runs, as copying the model takes a while.
    pub(crate) fn shared() -> &'static Self {
        static HOME: OnceLock<Home> = OnceLock::new();
        HOME.get_or_init(|| {
            let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("home-with-smollm2");
            std::fs::create_dir_all(&root).unwrap();
            let home = Self { root, _temporary: None };
            home.file("catalogue.toml", catalogue());
            home.pull();
            home
        })
    }

    fn pull(&self) {
        let pulled = self.tieline(["pull", "smollm2"]).output();
        assert!(pulled.status.success(), "{}", self.said(&pulled));
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.join("home")
    }

    /// Writes a file beside the home. Tests in several processes may write the same one.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.root.join(name);
        let mut file = tempfile::NamedTempFile::new_in(&self.root).unwrap();
        std::io::Write::write_all(&mut file, content.as_ref()).unwrap();
        file.persist(&path).unwrap();
        path
    }

    /// The program with these arguments, and none of the caller's settings.
    pub(crate) fn tieline<Arg: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = Arg>,
    ) -> Tieline {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
        command.timeout(DEADLINE).args(args).envs(self.environment());
        for name in ["TIELINE_RUNNER", "TIELINE_PYTHON", "HF_ENDPOINT", "HF_TOKEN"] {
            command.env_remove(name);
        }
        Tieline { command }
    }

    /// What [`Home::tieline`] sets.
    pub(crate) fn environment(&self) -> [(&'static str, PathBuf); 6] {
        [
            ("TIELINE_HOME", self.path()),
            ("TIELINE_CATALOGUE", self.root.join("catalogue.toml")),
            ("TIELINE_OFFLINE", "true".into()),
            // A cached prompt has other figures, and on some models another answer.
            ("TIELINE_PROMPT_CACHE", "off".into()),
            // Tests run beside each other, and what one measures another would compute with.
            ("TIELINE_KERNEL_TABLE", "true".into()),
            ("TZ", "UTC".into()),
        ]
    }

    /// `tieline run smollm2` with the same answer on every machine, and room for others to run meanwhile.
    pub(crate) fn run(&self, runner: &Path, args: &[&str]) -> Tieline {
        let fixed = ["run", "smollm2", "--greedy", "--threads", "1", "--ctx", "512"];
        self.tieline(fixed).args(args).runner(runner)
    }

    /// The standard question, as JSON.
    pub(crate) fn report(&self, runner: &Path, args: &[&str]) -> Value {
        self.run(runner, &["--system", SYSTEM, QUESTION, "--json"]).args(args).json()
    }

    /// Exit code and both streams in one text, without what differs from run to run.
    pub(crate) fn said(&self, output: &Output) -> String {
        let code = output.status.code();
        let code = code.map_or_else(|| output.status.to_string(), |code| format!("exit {code}"));
        let mut said = format!("{code}\n");
        for (name, stream) in [("stdout", &output.stdout), ("stderr", &output.stderr)] {
            if !stream.is_empty() {
                let text = self.filtered(std::str::from_utf8(stream).unwrap());
                said += &format!("--- {name}\n{text}");
            }
        }
        said.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }

    fn filtered(&self, text: &str) -> String {
        let model = testkit::smollm2().display().to_string();
        let text = text
            .replace(&self.path().display().to_string(), "[HOME]")
            .replace(&self.root.display().to_string(), "[ROOT]")
            .replace(&model, "[MODEL]");
        let words = text.split_inclusive([' ', '\n', ',']).map(|word| {
            let bare = word.trim_end_matches([' ', '\n', ',']);
            let mask = match bare.as_bytes() {
                [b'2', _, _, _, b'-', _, _, b'-', _, _] => "[DATE]",
                [b'1', digits @ ..]
                    if digits.len() == 9 && digits.iter().all(u8::is_ascii_digit) =>
                {
                    "[TIME]"
                }
                _ => bare,
            };
            format!("{mask}{}", &word[bare.len()..])
        });
        words.collect()
    }
}

/// The built-in names, with a file in place of the network.
pub(crate) fn catalogue() -> String {
    let (model, digest) = (testkit::smollm2(), testkit::SMOLLM2_DIGEST);
    let size = model.metadata().unwrap().len();
    format!(
        "[smollm2]\naliases = ['smollm2-135m']\ndigest = 'sha256:{digest}'\nsize_bytes = {size}\n\
         licence = 'Apache-2.0'\nmirrors = ['file:{}']\n",
        model.display()
    )
}

/// A command to start.
pub(crate) struct Tieline {
    command: Command,
}

impl Tieline {
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn runner(mut self, runner: &Path) -> Self {
        self.command.env("TIELINE_RUNNER", runner);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.command.write_stdin(input);
        self
    }

    /// It may take longer than others: it loads the model again and again.
    pub(crate) fn slow(mut self) -> Self {
        self.command.timeout(5 * DEADLINE);
        self
    }

    /// Runs it to its end.
    pub(crate) fn output(mut self) -> Output {
        self.command.output().unwrap()
    }

    /// Standard output of a command that must succeed and say nothing else.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        let output = self.output();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.is_empty(), "{:?}: {stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Its JSON.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }
}

/// Compares all that a command said, and its exit code, with an inline snapshot.
macro_rules! check {
    ($home:expr, $command:expr, @$want:literal) => {
        insta::assert_snapshot!($home.said(&$command.output()), @$want)
    };
}
pub(crate) use check;

/// The keys of a JSON object, in their order.
pub(crate) fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}
