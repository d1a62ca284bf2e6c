//! Measures a prompt that does not fit: llama-server's clients shorten it by what they are told.

use tieline_types::wire::{Reply, Work};
use tieline_types::{ErrorKind, Prompt, Request, Tokens, Wanted};

use super::completion::Asked;
use crate::app::App;
use crate::error::{ApiError, Excess, Fault};
use crate::open::Reading;

/// What was asked of whom.
pub(super) struct Tried {
    wanted: Wanted,
    request: Request,
    reading: Reading,
}

impl Tried {
    pub(super) fn of(asked: &Asked) -> Self {
        let (wanted, request) = (asked.ask.wanted.clone(), asked.ask.request.clone());
        Self { wanted, request, reading: asked.reading }
    }

    /// The error with the prompt's length and the context's, where it is that the one does not fit the other. Without
    /// them where the model is no more in memory, or another machine's: nobody is asked for that.
    pub(super) async fn measured(self, app: &App, error: ApiError) -> ApiError {
        if error.fault != Fault::Backend(ErrorKind::ContextExceeded) {
            return error;
        }
        let excess = self.excess(app).await;
        ApiError { excess, ..error }
    }

    async fn excess(self, app: &App) -> Option<Excess> {
        let host = app.router().host();
        let status = host.status().await.ok()?;
        let name = self.wanted.name.strip_suffix(":latest").unwrap_or(&self.wanted.name);
        let model = status.models.iter().find(|model| model.name.eq_ignore_ascii_case(name))?;
        let context = model.served.as_deref()?.loaded.context;
        let work = match &self.request.prompt {
            Prompt::Text(text) if self.reading == Reading::Special => {
                Work::Tokenize { text: text.clone(), add_special: true, parse_special: true }
            }
            _ => Work::Count(Box::new(self.request)),
        };
        let prompt = match host.work(&self.wanted, work).await.ok()? {
            Reply::Count(tokens) => tokens,
            Reply::Tokens(tokens) => Tokens(u32::try_from(tokens.len()).ok()?),
            _ => return None,
        };
        Some(Excess { prompt, context })
    }
}
