//! Single work of a model, within the time that a request may take.

use std::sync::Arc;

use tieline_router::Routed;
use tieline_types::wire::{Reply, Work};
use tieline_types::{BackendError, ErrorKind, Pooling, Served, Wanted};

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::made::Made;
use crate::open;
use crate::routes::Dialect;

/// Has a model that was loaded for vectors do this.
pub(crate) async fn vectors(
    app: &App,
    caller: &Caller,
    operation: &'static str,
    (model, work): (String, Work),
) -> Result<(Arc<Served>, Reply), ApiError> {
    let wanted = Made::find(app, caller, &model)?.wanted(&Wanted::named(&model));
    let wanted = Wanted { vectors: Some(Pooling::Model), ..wanted };
    let routed = open::route(app, caller, (Dialect::OpenAi, operation), wanted)?;
    let most = app.config().limits.request;
    match tokio::time::timeout(most, done(routed, work)).await {
        Ok(done) => Ok(done?),
        Err(_) => {
            let text = format!("the work took longer than {} s", most.as_secs());
            Err(BackendError::new(ErrorKind::Timeout, text).into())
        }
    }
}

async fn done(mut routed: Routed, work: Work) -> Result<(Arc<Served>, Reply), BackendError> {
    let served = routed.ready().await?;
    Ok((served, routed.work(work).await?))
}

/// A reply of another kind than the work's.
pub(crate) fn unexpected() -> ApiError {
    BackendError::new(ErrorKind::Internal, "the model sent a reply of another kind").into()
}
