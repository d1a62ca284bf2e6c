//! The folder of computed prompts: how much it may hold, and how much it does.

use std::fs::{self, DirBuilder};
use std::io;
use std::path::Path;

use tieline_types::Bytes;

/// What the folder may hold where nobody says otherwise.
const DEFAULT: Bytes = Bytes(4_000_000_000);
/// The part of the free space that is taken where nobody says otherwise.
const SHARE_OF_FREE: u64 = 10;
/// Less than this holds no prompt worth keeping.
const LEAST: Bytes = Bytes(10_000_000);

/// How much the user allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quota {
    Off,
    AtMost(Bytes),
}

/// Reads `off`, or a number with its unit: `2GB`, `1.5 GiB`, `500MB`.
///
/// # Errors
/// Says what was expected.
pub(crate) fn quota(text: &str) -> Result<Quota, String> {
    if matches!(text.trim().to_ascii_lowercase().as_str(), "off" | "0") {
        return Ok(Quota::Off);
    }
    let size = size(text.trim()).ok_or("expected a size such as 2GB or 500MB, or off")?;
    if size < LEAST {
        return Err(format!("expected at least {LEAST}, or off"));
    }
    Ok(Quota::AtMost(size))
}

/// Reads a size: `2GB`, `1.5 GiB`, `500MB`.
///
/// # Errors
/// Says what was expected.
pub(crate) fn bytes(text: &str) -> Result<Bytes, String> {
    size(text.trim()).ok_or_else(|| "expected a size such as 2GB or 500MB".to_owned())
}

/// A decimal number and its unit, in whole bytes.
fn size(text: &str) -> Option<Bytes> {
    const UNITS: [(&str, u64); 10] = [
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("b", 1),
        ("", 1),
    ];
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim().to_ascii_lowercase();
    let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(*unit)?;
    // Nobody needs more digits, and so few cannot overflow.
    let digits = u32::try_from(part.len()).ok().filter(|digits| (1..=6).contains(digits))?;
    let part = u128::from(part.parse::<u64>().ok()?) * u128::from(*unit) / 10_u128.pow(digits);
    Some(Bytes(whole.checked_add(u64::try_from(part).ok()?)?))
}

/// The most bytes that `folder` may hold; `None` for no cache at all.
pub(crate) fn allowed(quota: Option<Quota>, folder: &Path) -> Option<Bytes> {
    match quota {
        Some(Quota::Off) => None,
        Some(Quota::AtMost(bytes)) => Some(bytes),
        None => by_default(free(folder), held(folder)),
    }
}

/// The usual quota, by the space that is free and what the folder holds already; `None` where that
/// leaves nothing worth keeping.
fn by_default(free: Option<Bytes>, held: Bytes) -> Option<Bytes> {
    let Some(free) = free else { return Some(DEFAULT) };
    // What is held would be free without the cache.
    let share = Bytes(free.0.saturating_add(held.0) / SHARE_OF_FREE);
    let quota = DEFAULT.min(share);
    (quota >= LEAST).then_some(quota)
}

/// Space for this user on the disk of `folder`, which need not exist yet.
fn free(folder: &Path) -> Option<Bytes> {
    let existing = folder.ancestors().find(|path| path.is_dir())?;
    tieline_store::free_space(existing).ok()?
}

/// Makes the folder, and makes it this user's alone where it is there and others may look into it.
pub(crate) fn prepare(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if fs::metadata(folder)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        }
    }
    Ok(())
}

/// What the folder holds now.
pub(crate) fn held(folder: &Path) -> Bytes {
    let Ok(entries) = fs::read_dir(folder) else { return Bytes(0) };
    let sizes = entries.flatten().filter_map(|entry| entry.metadata().ok());
    Bytes(sizes.filter(fs::Metadata::is_file).map(|file| file.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<u64>) {
        assert_eq!(quota(text), Ok(want.map_or(Quota::Off, |bytes| Quota::AtMost(Bytes(bytes)))));
    }

    #[test]
    fn sizes_are_read() {
        check("off", None);
        check("OFF", None);
        check("0", None);
        check("2GB", Some(2_000_000_000));
        check("1.5 GiB", Some(1_610_612_736));
        check("500mb", Some(500_000_000));
        check("10000000", Some(10_000_000));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        let many = "9".repeat(30);
        for text in ["", "much", "GB", "-1GB", "2 GB free", "1.GB", "1.2.3GB", "1.1234567GB", &many]
        {
            let error = quota(text).unwrap_err();
            assert_eq!(error, "expected a size such as 2GB or 500MB, or off", "{text}");
        }
        assert_eq!(quota("99999999999TB").unwrap_err().len(), 44);
        assert_eq!(quota("1MB").unwrap_err(), "expected at least 10.0 MB, or off");
    }

    #[test]
    fn the_usual_quota_leaves_most_of_the_disk() {
        let gigabytes = |number: u64| Bytes(number * 1_000_000_000);
        assert_eq!(by_default(Some(gigabytes(500)), Bytes(0)), Some(gigabytes(4)));
        assert_eq!(by_default(Some(gigabytes(20)), Bytes(0)), Some(gigabytes(2)));
        assert_eq!(by_default(Some(gigabytes(18)), gigabytes(2)), Some(gigabytes(2)));
        assert_eq!(by_default(Some(Bytes(50_000_000)), Bytes(0)), None);
        assert_eq!(by_default(None, Bytes(0)), Some(gigabytes(4)));
    }

    #[test]
    fn a_folder_that_is_not_there_holds_nothing() {
        assert_eq!(held(Path::new("/nowhere/prompts")), Bytes(0));
        assert!(free(Path::new("/nowhere/prompts")).is_some());
    }
}
