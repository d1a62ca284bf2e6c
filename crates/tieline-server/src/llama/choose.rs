//! Which model a request means that may not name one.

use tieline_types::Wanted;

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::made::Made;

/// Names of models that an error lists at most.
const LISTED: usize = 20;

/// The model that is named; else the only one in memory; else the only one that is installed. With what was made of
/// it.
///
/// # Errors
/// None is named and several could be meant, or none is here.
pub(crate) async fn choose(
    app: &App,
    caller: &Caller,
    named: Option<String>,
) -> Result<(Wanted, Made), ApiError> {
    let name = meant(app, caller, named).await?;
    let made = Made::find(app, caller, &name)?;
    Ok((made.wanted(&Wanted::named(&name)), made))
}

/// The name of the model that [`choose`] chooses, as the caller has it.
///
/// # Errors
/// As [`choose`]'s.
pub(crate) async fn meant(
    app: &App,
    caller: &Caller,
    named: Option<String>,
) -> Result<String, ApiError> {
    match named.filter(|name| !name.is_empty()) {
        Some(name) => Ok(name),
        None => usual(app, caller).await,
    }
}

async fn usual(app: &App, caller: &Caller) -> Result<String, ApiError> {
    let host = app.router().host();
    let status = host.status().await?;
    let in_memory = status.models.into_iter().map(|model| model.name);
    let installed = host.models().await?.into_iter().map(|card| card.name);
    let may_ask = |name: &String| caller.may_ask(name);
    only(in_memory.filter(may_ask).collect(), installed.filter(may_ask).collect())
        .map_err(|text| ApiError::invalid("model", text))
}

/// The only one of those in memory, else of those installed.
fn only(mut in_memory: Vec<String>, mut installed: Vec<String>) -> Result<String, String> {
    // A model may be in memory twice: once to write, once to make vectors.
    in_memory.sort();
    in_memory.dedup();
    if let [name] = in_memory.as_slice() {
        return Ok(name.clone());
    }
    installed.sort();
    match installed.as_slice() {
        [] => Err("no model is here: tieline pull NAME brings one".to_owned()),
        [name] => Ok(name.clone()),
        names => {
            let more = if names.len() > LISTED { ", …" } else { "" };
            let names = names.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
            Err(format!("no model is named, and several are here: name one of {names}{more}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(in_memory: &[&str], installed: &[&str], want: Result<&str, &str>) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let found = only(owned(in_memory), owned(installed));
        assert_eq!(found.as_deref().map_err(String::as_str), want);
    }

    #[test]
    fn the_only_model_is_meant() {
        check(&["a"], &["a", "b"], Ok("a"));
        check(&["a", "a"], &["a", "b"], Ok("a"));
        check(&[], &["b"], Ok("b"));
        let several = "no model is named, and several are here: name one of a, b";
        check(&[], &["b", "a"], Err(several));
        check(&["a", "b"], &["a", "b"], Err(several));
        check(&[], &[], Err("no model is here: tieline pull NAME brings one"));
    }

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names: Vec<String> = (100..200).map(|number| number.to_string()).collect();
        let error = only(Vec::new(), names).unwrap_err();
        assert!(error.ends_with(", 119, …"), "{error}");
    }
}
