//! How long a prompt is, as the model that would answer it reads it.

use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tieline_types::wire::{Reply, Work};
use tieline_types::{BackendError, ErrorKind};

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::{Marks, stamp};
use crate::open::{self, Ask};
use crate::routes::Dialect;

/// A call that only counts.
pub(crate) struct Counting {
    /// The dialect, and what the call is called in records.
    pub(crate) what: (Dialect, &'static str),
    pub(crate) ask: Ask,
    /// Members of the answer beside the count.
    pub(crate) beside: Map<String, Value>,
    /// Members of the call that nobody reads.
    pub(crate) ignored: Vec<String>,
}

/// Has the model of this machine count that would be asked first: its template, the tools and all. Where another
/// machine's would be, nobody is asked, since that would be another request to it: an estimate is given, and said to be
/// one.
///
/// # Errors
/// The request is none, or there is no such model, or it cannot be loaded.
pub(crate) async fn count(
    app: &App,
    caller: &Caller,
    Counting { what, ask, beside, ignored }: Counting,
) -> Result<Response, ApiError> {
    let Ask { wanted, request, .. } = ask;
    request.validate()?;
    let mut body = Value::Object(beside);
    let decided = open::decide(app, caller, what, (wanted, &request)).await?;
    let marks = match decided.here() {
        None => {
            body["input_tokens"] = json!(decided.estimated());
            body["estimated"] = json!(true);
            Marks { decision: Some(decided.decision().clone()), ..Marks::default() }
        }
        Some(mut routed) => {
            let served = routed.ready().await?;
            let Reply::Count(tokens) = routed.work(Work::Count(Box::new(request))).await? else {
                let error = BackendError::new(ErrorKind::Internal, "the model sent no count");
                return Err(error.into());
            };
            body["input_tokens"] = json!(tokens);
            Marks::here(&served)
        }
    };
    Ok(stamp(axum::Json(body).into_response(), caller, &marks, &ignored))
}
