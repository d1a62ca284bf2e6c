//! Who the user is for git: the names and addresses in its configuration files. No program is run.
//!
//! More than git itself would take: what every `includeIf` names is read, whatever its condition, and whoever differs as
//! author or committer too. Where something is to be hidden, a name too many is better than one too few.

mod config;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};

use crate::failure::Failure;
use config::Entry;

/// The longest file, in bytes.
const LONGEST: u64 = 1 << 20;
/// The most files that are read.
const MOST: usize = 64;

/// What git knows this user by, in his own configuration and in that of these projects.
///
/// # Errors
/// A file cannot be read, a folder is no project, or nobody is named at all.
pub(super) fn identities(projects: &[String]) -> Result<Vec<String>, Failure> {
    let config = choose_base_strategy().ok().map(|strategy| strategy.config_dir());
    find(std::env::home_dir(), config, projects)
}

fn find(
    home: Option<PathBuf>,
    config: Option<PathBuf>,
    projects: &[String],
) -> Result<Vec<String>, Failure> {
    let own = [config.map(|folder| folder.join("git/config")), home.as_deref().map(own)];
    let mut reading = Reading { home, files: Vec::new(), found: Vec::new() };
    for path in own.into_iter().flatten() {
        reading.file(&path)?;
    }
    for project in projects {
        let path = of_project(&reading.expanded(project, Path::new(""))?)?;
        if !path.exists() {
            return Err(failed(&path, "it is not there"));
        }
        reading.file(&path)?;
        reading.file(&path.with_extension("worktree"))?;
    }
    if reading.found.is_empty() {
        return Err(Failure::user("`git_identity` of the policy: git knows no name of yours")
            .with_hint("`git config --global user.name NAME`, or leave `git_identity` out"));
    }
    Ok(reading.found)
}

fn own(home: &Path) -> PathBuf {
    home.join(".gitconfig")
}

/// Where a project's configuration is: a work tree beside the project itself says where that is.
fn of_project(folder: &Path) -> Result<PathBuf, Failure> {
    let git = folder.join(".git");
    if git.is_dir() {
        return Ok(git.join("config"));
    }
    let Some(text) = read(&git)? else {
        let text = format!("`git_identity` of the policy: {} is no project", folder.display());
        return Err(Failure::user(text).with_hint("name the folder that holds .git"));
    };
    let named = text.trim().strip_prefix("gitdir:").map(str::trim);
    let named = named.ok_or_else(|| failed(&git, "it does not begin with gitdir:"))?;
    let there = folder.join(named);
    let common = read(&there.join("commondir"))?;
    let common = common.map_or_else(|| there.clone(), |common| there.join(common.trim()));
    Ok(common.join("config"))
}

/// The text of a file; `None`: it is not there.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    let mut text = String::new();
    // Opening a pipe would wait for a writer.
    if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
        return Err(failed(path, "it is no file"));
    }
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path, &error.to_string())),
    };
    let read = file.take(LONGEST + 1).read_to_string(&mut text);
    read.map_err(|error| failed(path, &error.to_string()))?;
    match text.len() as u64 > LONGEST {
        true => Err(failed(path, "it is longer than 1 MiB")),
        false => Ok(Some(text)),
    }
}

fn failed(path: &Path, why: &str) -> Failure {
    let text = format!("`git_identity` of the policy: cannot read {}: {why}", path.display());
    Failure::user(text).with_hint("mend the file, or leave `git_identity` out of the policy")
}

/// What was read so far.
struct Reading {
    home: Option<PathBuf>,
    files: Vec<PathBuf>,
    found: Vec<String>,
}

impl Reading {
    /// Reads a file and those that it includes. As with git, one that is not there is none.
    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let Some(text) = read(path)? else { return Ok(()) };
        let whole = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if self.files.contains(&whole) {
            return Ok(());
        }
        if self.files.len() == MOST {
            return Err(failed(path, "it is the 65th file, and one includes the other"));
        }
        self.files.push(whole);
        let entries = config::entries(&text)
            .map_err(|fault| failed(path, &format!("line {}: {}", fault.line, fault.why)))?;
        for entry in entries {
            self.entry(entry, path)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        Entry { section, part, key, value }: Entry,
        at: &Path,
    ) -> Result<(), Failure> {
        match (section.as_str(), part, key.as_str()) {
            ("user" | "author" | "committer", None, "name" | "email") => {
                let value = value.trim().to_owned();
                if !value.is_empty() && !self.found.contains(&value) {
                    self.found.push(value);
                }
                Ok(())
            }
            ("include", None, "path") | ("includeif", Some(_), "path") => {
                let path = self.expanded(&value, at)?;
                self.file(&path)
            }
            _ => Ok(()),
        }
    }

    /// A path as git has it: from the user's home, else from the folder of the file that names it.
    fn expanded(&self, path: &str, at: &Path) -> Result<PathBuf, Failure> {
        match (path.strip_prefix("~/"), &self.home) {
            (Some(rest), Some(home)) => Ok(home.join(rest)),
            (None, _) if !path.starts_with(['~', '%']) => {
                Ok(at.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path)))
            }
            _ => Err(failed(Path::new(path), "whose folder that is, is not known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Town(tempfile::TempDir);

    impl Town {
        fn new(files: &[(&str, &str)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (path, text) in files {
                let path = folder.path().join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(folder)
        }

        fn find(&self, projects: &[&str]) -> Result<Vec<String>, String> {
            let home = self.0.path();
            let projects: Vec<String> = projects.iter().map(|path| (*path).to_owned()).collect();
            find(Some(home.to_owned()), Some(home.join(".config")), &projects).map_err(|failure| {
                assert!(failure.hint.is_some());
                failure.message
            })
        }
    }

    const JANE: &str = "[user]\n\tname = Jane Roe\n\temail = jane@example.org\n";

    #[test]
    fn names_are_read_from_the_users_and_the_projects_files() {
        let town = Town::new(&[
            (".gitconfig", JANE),
            (".config/git/config", "[user]\nname = J. Roe\n[Author]\nEMAIL = j@x.example ; mine\n"),
            ("code/.git/config", "[core]\n\tbare = false\n[user]\n\temail = roe@code.example\n"),
            ("tree/.git", "gitdir: ../code/.git/worktrees/tree\n"),
            ("code/.git/worktrees/tree/commondir", "../..\n"),
        ]);
        let own = ["J. Roe", "j@x.example", "Jane Roe", "jane@example.org"];
        assert_eq!(town.find(&[]).unwrap(), own);
        let all = [&own[..], &["roe@code.example"]].concat();
        for project in ["~/code", "~/tree", &town.0.path().join("code").display().to_string()] {
            assert_eq!(town.find(&[project]).unwrap(), all, "{project}");
        }
    }

    #[test]
    fn what_is_included_is_read_whatever_its_condition_and_once() {
        let town = Town::new(&[
            (
                ".gitconfig",
                "[include]\npath = more/a\n[includeIf \"gitdir:~/never/\"]\npath = ~/b\n[include]\npath = gone\n",
            ),
            ("more/a", "[user]\nname = Ann\n[include]\npath = ../.gitconfig\npath = c\n"),
            ("more/c", "[committer]\nname = Cem\n[user \"other\"]\nname = Not\n"),
            ("b", "[user]\nemail = b@example.org\n"),
        ]);
        assert_eq!(town.find(&[]).unwrap(), ["Ann", "Cem", "b@example.org"]);
    }

    #[test]
    fn what_cannot_be_read_says_which_file_and_line() {
        let check = |files: &[(&str, &str)], projects: &[&str], want: &str| {
            let why = Town::new(files).find(projects).unwrap_err();
            assert!(why.contains(want), "{why}");
            assert!(!why.contains("CANARY"), "{why}");
        };
        check(&[], &[], "git knows no name of yours");
        let broken = "[user]\nname = \"CANARY\n";
        check(&[(".gitconfig", broken)], &[], ".gitconfig: line 2: a quotation has no end");
        check(&[(".gitconfig", JANE)], &["~/nowhere"], "nowhere is no project");
        check(
            &[(".gitconfig", JANE), ("p/.git", "CANARY")],
            &["~/p"],
            "does not begin with gitdir:",
        );
        check(&[(".gitconfig", JANE), ("p/.git/x", "")], &["~/p"], "config: it is not there");
        check(&[(".gitconfig", "[include]\npath = ~bob/x\n")], &[], "cannot read ~bob/x");
        let long = "#".repeat(1 << 20) + "\n";
        check(&[(".gitconfig", &long)], &[], "it is longer than 1 MiB");
        let town = Town::new(&[]);
        fs::write(town.0.path().join(".gitconfig"), b"[user]\nname = \xff\n").unwrap();
        assert!(town.find(&[]).unwrap_err().contains(".gitconfig"));
        let chain: Vec<(String, String)> = (0..70)
            .map(|at| (format!("f{at}"), format!("[include]\npath = f{}\n", at + 1)))
            .chain([(".gitconfig".to_owned(), "[include]\npath = f0\n".to_owned())])
            .collect();
        let chain: Vec<(&str, &str)> =
            chain.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        check(&chain, &[], "it is the 65th file");
    }
}
