//! Names of users in the paths of home directories.

use super::cue::Cue;
use super::entity::Entity;
use super::text::{Candidate, Text};

/// Names that many machines share.
const SHARED: [&str; 38] = [
    "user",
    "users",
    "username",
    "root",
    "shared",
    "public",
    "default",
    "ubuntu",
    "runner",
    "app",
    "node",
    "vscode",
    "circleci",
    "admin",
    "administrator",
    "guest",
    "linuxbrew",
    "git",
    "jenkins",
    "gitlab-runner",
    "ec2-user",
    "vagrant",
    "pi",
    "debian",
    "centos",
    "docker",
    "postgres",
    "www-data",
    "jovyan",
    "coder",
    "codespace",
    "me",
    "you",
    "name",
    "yourname",
    "example",
    "all users",
    "runneradmin",
];

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    let homes = text.hits.iter().filter(|hit| hit.cue == Cue::Home);
    out.extend(homes.filter_map(|hit| name(text, hit.start, hit.end)));
}

fn name(text: &Text<'_>, start: usize, end: usize) -> Option<Candidate> {
    let rest = text.clip(end, 64).trim_start_matches('\\');
    let end = end + (text.clip(end, 64).len() - rest.len());
    let windows = text.str[start..].starts_with('\\') || text.str[..end].ends_with('\\');
    // `/users/42` in an address of the web names no directory.
    let before = text.str[..start].chars().next_back();
    let is_route = !windows
        && before.is_some_and(|sign| sign.is_alphanumeric() || matches!(sign, '.' | '}' | '>'));
    let is_web = !windows && text.str[start..].starts_with("/users/");
    let drive = before == Some(':') || text.str[..start].ends_with("/mnt/c");
    let blank = |sign: char| sign == ' ' && windows;
    let fits =
        |sign: char| sign.is_alphanumeric() || matches!(sign, '.' | '_' | '-') || blank(sign);
    let len: usize = rest.chars().take_while(|sign| fits(*sign)).map(char::len_utf8).sum();
    let name = rest[..len].trim_end_matches(['.', '-']);
    // A blank belongs to a name only where a separator ends it.
    let name = match rest[len..].starts_with('\\') {
        true => name,
        false => name.split(' ').next().unwrap_or_default(),
    };
    let lower = name.to_lowercase();
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let named = name.chars().count() >= 2 && !is_number && !SHARED.contains(&lower.as_str());
    let good = named && (drive || !is_route && !is_web);
    good.then(|| Candidate { range: end..end + name.len(), entity: Entity::Path })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::Path;

    #[test]
    fn homes() {
        check("at /home/jroe/src/x.rs:12", &[(Path, "jroe")]);
        check("/Users/jane.roe/Library", &[(Path, "jane.roe")]);
        check(r"C:\Users\Jane Roe\AppData", &[(Path, "Jane Roe")]);
        check(r#""C:\\Users\\jroe\\x""#, &[(Path, "jroe")]);
    }

    #[test]
    fn what_names_nobody() {
        check(
            "/home/runner/work /home/user/x GET /users/alice https://x.org/home/page /Users/Shared",
            &[],
        );
    }
}
