//! Every crate has its own paragraph in `ARCHITECTURE.md`.

pub(super) fn faults(crates: &[String], map: &str) -> Vec<String> {
    let lacks = crates.iter().filter(|name| !has_paragraph(map, name));
    lacks.map(|name| format!("ARCHITECTURE.md: no paragraph for crates/{name}")).collect()
}

/// A heading or a bold start that names the crate alone, with text behind it.
fn has_paragraph(map: &str, name: &str) -> bool {
    let lines: Vec<&str> = map.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        let Some((head, rest)) = split_head(line) else { return false };
        let following = lines[at + 1..].iter().find(|line| !line.is_empty());
        let has_text = !rest.is_empty() || following.is_some_and(|line| split_head(line).is_none());
        is_name(head, name) && has_text
    })
}

/// A heading's or a bold start's words, and what follows on the same line.
fn split_head(line: &str) -> Option<(&str, &str)> {
    if line.starts_with('#') {
        return Some((line.trim_start_matches('#'), ""));
    }
    line.trim_start_matches("- ").strip_prefix("**")?.split_once("**")
}

fn is_name(head: &str, name: &str) -> bool {
    let bare = head.trim().trim_matches('`').trim_end_matches(['.', ':', '/', '`']);
    bare.strip_prefix("crates/").unwrap_or(bare) == name
}

#[cfg(test)]
mod tests {
    #[track_caller]
    fn check(map: &str, want: bool) {
        let faults = super::faults(&["tieline-store".to_owned()], map);
        assert_eq!(faults.is_empty(), want, "{faults:?}");
    }

    #[test]
    fn a_heading_or_a_bold_start_with_text_passes() {
        check("### `crates/tieline-store`\n\nKeeps what outlives us.\n", true);
        check("### tieline-store\nKeeps what outlives us.\n", true);
        check("**`tieline-store`** keeps what outlives us.\n", true);
        check("- **`crates/tieline-store/`**: keeps what outlives us.\n", true);
    }

    #[test]
    fn a_mention_is_not_a_paragraph() {
        check("The engine does not know tieline-store.\n", false);
        check("**Note** on `tieline-store`.\n", false);
    }

    #[test]
    fn another_crate_with_a_longer_name_does_not_count() {
        check("### `crates/tieline-store-index`\n\nText.\n", false);
    }

    #[test]
    fn an_empty_paragraph_does_not_count() {
        check("### `crates/tieline-store`\n\n### `crates/tieline`\n\nText.\n", false);
        check("### `crates/tieline-store`\n", false);
        check("", false);
    }
}
