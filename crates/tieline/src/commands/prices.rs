//! `tieline prices`

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tieline_router::prices::{Prices, verify};
use tieline_store::{PriceTable, Store};
use tieline_types::Hint;

use crate::app::App;
use crate::args::{PricesCommand, PricesUpdate};
use crate::failure::{Failure, with_causes};

/// The longest table, signature or key that is read, in bytes.
const LONGEST: u64 = 4 << 20;

pub(super) fn prices(app: &App, command: &PricesCommand) -> Result<(), Failure> {
    match command {
        PricesCommand::Show => show(app, &in_use(&app.store)?),
        PricesCommand::Update(update) => take(app, update),
        PricesCommand::Reset => {
            app.store.keep_price_table(None).map_err(|error| failed(&error))?;
            show(app, &in_use(&app.store)?)
        }
    }
}

/// The table in use: the newer of the program's own and the one that was kept, whose signature is checked each time.
pub(crate) fn in_use(store: &Store) -> Result<Prices, Failure> {
    let own = Prices::builtin().map_err(|error| Failure::ours(with_causes(&error)))?;
    let Some(kept) = store.price_table().map_err(|error| failed(&error))? else { return Ok(own) };
    let forced = kept.forced;
    let kept = read(&kept).map_err(|failure| {
        Failure::user(format!("the table of prices that was kept cannot be used: {failure}"))
            .with_hint("`tieline prices reset` goes back to the program's own")
    })?;
    Ok(if kept.as_of() < own.as_of() && !forced { own } else { kept })
}

/// What it says, once its signature is found to be right.
fn read(table: &PriceTable) -> Result<Prices, String> {
    verify(&table.table, &table.signature, &table.key).map_err(|error| with_causes(&error))?;
    Prices::of_table(&table.table).map_err(|error| with_causes(&error))
}

fn take(app: &App, update: &PricesUpdate) -> Result<(), Failure> {
    let PricesUpdate { file, signature, key, force } = update;
    let kept = app.store.price_table().map_err(|error| failed(&error))?.map(|kept| kept.key);
    let key = trusted((key.as_deref(), kept), *force)?;
    let beside = || PathBuf::from(format!("{}.minisig", file.display()));
    let signature = signature.clone().unwrap_or_else(beside);
    if !signature.exists() {
        let message =
            format!("{} has no signature: {} is not there", file.display(), signature.display());
        return Err(Failure::user(message).with_hint(
            "only a table that is signed with minisign is used; --signature names its file",
        ));
    }
    let (table, signature) = (text(file)?, text(&signature)?);
    let mut table = PriceTable { table, signature, key, forced: false };
    verify(&table.table, &table.signature, &table.key).map_err(|error| {
        let failure = Failure::user(format!("{}: {}", file.display(), with_causes(&error)));
        error.hint().into_iter().fold(failure, Failure::with_hint)
    })?;
    let new = Prices::of_table(&table.table)
        .map_err(|error| Failure::user(format!("{}: {}", file.display(), with_causes(&error))))?;
    let own = Prices::builtin().map_err(|error| Failure::ours(with_causes(&error)))?;
    // One that was forced for its key's sake leaves to a newer one of the program's own, as any other does.
    table.forced = *force && new.as_of() < own.as_of();
    if !force {
        newer(file, &new, &in_use(&app.store)?)?;
    }
    app.store.keep_price_table(Some(&table)).map_err(|error| failed(&error))?;
    app.output.talk("a running server takes it within seconds");
    show(app, &in_use(&app.store)?)
}

/// An old table may be offered again, signature and all: prices that fell back would be paid unseen.
fn newer(file: &Path, new: &Prices, now: &Prices) -> Result<(), Failure> {
    if new.as_of() > now.as_of() || new.digest() == now.digest() {
        return Ok(());
    }
    let same_day = new.as_of() == now.as_of();
    let (file, new, now) = (file.display(), new.edition(), now.edition());
    let message = match same_day {
        // Its rows may be older nevertheless.
        true => {
            format!("{file} is another table ({new}) of the same day as the one in use ({now})")
        }
        false => format!("{file} is older ({new}) than the table in use ({now})"),
    };
    Err(Failure::user(message).with_hint("--force takes it nevertheless"))
}

/// The key to check by: the one that was kept, or the one that is given, where there is none yet.
fn trusted((given, kept): (Option<&str>, Option<String>), force: bool) -> Result<String, Failure> {
    let Some(given) = given else {
        return kept.ok_or_else(|| {
            Failure::user("no key is trusted to sign prices").with_hint(
                "--key KEY names the public key of whoever signs them; it is kept for the next time",
            )
        });
    };
    let given = match Path::new(given).exists() {
        true => text(Path::new(given))?,
        false => given.to_owned(),
    };
    // The comment in a key's file says nothing.
    let line = |key: &str| key.trim().lines().last().unwrap_or_default().trim().to_owned();
    match kept {
        Some(kept) if line(&kept) != line(&given) && !force => {
            Err(Failure::user("this is not the key that was trusted before")
                .with_hint("--force trusts it from now on"))
        }
        _ => Ok(line(&given)),
    }
}

fn show(app: &App, prices: &Prices) -> Result<(), Failure> {
    let kept = app.store.price_table().map_err(|error| failed(&error))?;
    let in_use = kept.filter(|kept| {
        Prices::of_table(&kept.table).is_ok_and(|one| one.digest() == prices.digest())
    });
    let key = in_use.map(|kept| kept.key);
    if app.output.is_json() {
        return app.output.value(&json!({
            "as_of": prices.as_of().to_string(), "digest": prices.digest(), "key": key,
        }));
    }
    let signed = key.map_or("the program's own".to_owned(), |key| format!("signed by {key}"));
    app.output.line(&format!("{}, {signed}", prices.edition()))
}

fn text(path: &Path) -> Result<String, Failure> {
    let fail = |why: String| Failure::user(format!("cannot read {}: {why}", path.display()));
    let length = fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if length > LONGEST {
        return Err(fail(format!("it is longer than {LONGEST} bytes")));
    }
    fs::read_to_string(path).map_err(|error| fail(error.to_string()))
}

fn failed(error: &tieline_store::PriceTableError) -> Failure {
    let failure = Failure::ours(with_causes(error));
    error.hint().into_iter().fold(failure, Failure::with_hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_table_of_the_same_day_is_refused() {
        let text = include_str!("../../tests/it/prices/newest.toml");
        let table = |text: &str| Prices::of_table(text).unwrap();
        let other = table(&text.replace("\"8\"", "\"1\""));
        let newer = |new: &Prices, now: &Prices| super::newer(Path::new("t"), new, now);
        newer(&table(text), &table(text)).unwrap();
        assert!(newer(&other, &table(text)).unwrap_err().message.contains("of the same day"));
        let older = table(include_str!("../../tests/it/prices/newer.toml"));
        newer(&other, &older).unwrap();
        assert!(newer(&older, &other).unwrap_err().message.contains("is older"));
    }
}
