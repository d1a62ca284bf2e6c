//! What is noted of an attempt before it leaves: its row in the ledger, should nobody come to write the true one.

use std::time::{SystemTime, UNIX_EPOCH};

use tieline_store::RequestRow;

use super::planned::Planned;
use super::setup::RemoteModel;
use crate::choose::Try;

impl Planned {
    /// All of it that is known before: not its money, which the till adds.
    pub(super) fn noted(&self, remote: &RemoteModel, one: &Try) -> RequestRow {
        let (backend, model) = one.name.split_once('/').unwrap_or(("", &one.name));
        let price = remote.price.as_ref().map(|price| &price.source);
        let date = price.and_then(|source| source.date());
        RequestRow {
            id: self.id.clone(),
            at_unix_ms: now_unix_ms(),
            key: self.asked.key.clone(),
            model: model.to_owned(),
            reason: "killed".to_owned(),
            backend: backend.to_owned(),
            vendor: remote.vendor.clone(),
            zone: one.zone,
            project: self.asked.project.clone().unwrap_or_default(),
            data_class: Some(self.decision.class.as_str().to_owned()),
            policy_rule: Some(one.rule.clone()),
            price_source: price.map(|source| source.as_str().to_owned()),
            price_date: date.map(|date| date.to_string()),
            ..RequestRow::default()
        }
    }
}

pub(super) fn now_unix_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
