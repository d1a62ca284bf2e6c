//! `tieline prices`

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tieline_router::policy::Policy;
use tieline_router::prices::{KEY, PriceError, Prices, SignatureError, key_line};
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
    let kept = read(&kept).map_err(|error| {
        let why = with_causes(&error);
        Failure::user(format!("the table of prices that was kept cannot be used: {why}"))
            .with_hint("`tieline prices reset` goes back to the program's own")
    })?;
    Ok(if kept.as_of() < own.as_of() && !forced { own } else { kept })
}

/// The table in use, and before it what the policy says.
pub(crate) fn with_policy(store: &Store, policy: &Policy) -> Result<Prices, Failure> {
    let prices = in_use(store)?.with_policy(&policy.prices);
    prices.map_err(|error| Failure::user(with_causes(&error)))
}

/// What it says, once its signature is found to be right.
fn read(PriceTable { table, signature, key, .. }: &PriceTable) -> Result<Prices, PriceError> {
    Prices::signed(table, signature, key)
}

/// Who signed a table, in a few words.
pub(super) fn signer(key: Option<&str>, by_program: bool) -> String {
    match (key, by_program) {
        (Some(_), true) => "signed by the program's key".to_owned(),
        (Some(key), false) => format!("signed by the key that you trust, {key}"),
        (None, _) => "signed by nobody".to_owned(),
    }
}

fn take(app: &App, update: &PricesUpdate) -> Result<(), Failure> {
    let PricesUpdate { file, signature, key, force } = update;
    let kept = app.store.price_table().map_err(|error| failed(&error))?.map(|kept| kept.key);
    let keys = trusted((key.as_deref(), kept), *force)?;
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
    let new = signed((&table, &signature), &keys).map_err(|error| {
        let failure = Failure::user(format!("{}: {}", file.display(), with_causes(&error)));
        let hint = match &error {
            PriceError::Signature(error) => error.hint(),
            _ => None,
        };
        hint.into_iter().fold(failure, Failure::with_hint)
    })?;
    let key = new.key().unwrap_or_default().to_owned();
    let mut table = PriceTable { table, signature, key, forced: false };
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

/// The table, by the first of these keys that signed it.
fn signed((table, signature): (&str, &str), keys: &[String]) -> Result<Prices, PriceError> {
    let mut keys = keys.iter();
    let key = keys.next().map_or(KEY, String::as_str);
    keys.fold(Prices::signed(table, signature, key), |before, key| match before {
        Err(PriceError::Signature(SignatureError::Other(_))) => {
            Prices::signed(table, signature, key)
        }
        before => before,
    })
}

/// The keys to check by: the one that is given; else the one that was kept, and the program's own, which signs the
/// table that takes the place of an older one anyway.
fn trusted(
    (given, kept): (Option<&str>, Option<String>),
    force: bool,
) -> Result<Vec<String>, Failure> {
    let Some(given) = given else {
        return Ok(kept.into_iter().chain([KEY.to_owned()]).collect());
    };
    let given = match Path::new(given).exists() {
        true => text(Path::new(given))?,
        false => given.to_owned(),
    };
    match kept {
        Some(kept) if key_line(&kept) != key_line(&given) && !force => {
            Err(Failure::user("this is not the key that was trusted before")
                .with_hint("--force trusts it from now on"))
        }
        _ => Ok(vec![given]),
    }
}

fn show(app: &App, prices: &Prices) -> Result<(), Failure> {
    if app.output.is_json() {
        return app.output.value(&json!({
            "as_of": prices.as_of().to_string(), "digest": prices.digest(), "key": prices.key(),
            "by_program": prices.is_by_program(),
        }));
    }
    let signer = signer(prices.key(), prices.is_by_program());
    app.output.line(&format!("{}, {signer}", prices.edition()))
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
