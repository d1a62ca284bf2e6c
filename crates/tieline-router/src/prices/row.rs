//! A row of prices, as it is written and as it is used.

use jiff::civil::Date;
use serde::Deserialize;
use tieline_types::{MicroUsd, Price, Tokens};

use super::glob;
use super::{NoAmount, PriceSource, Priced, SignatureError, Target, parse_usd};

/// A row as it is written: in the table, or as `[[price]]` in a policy. Amounts are dollars for a million tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceRow {
    /// The vendor or, in a policy, the backend; `*` stands for any text.
    pub vendor: String,
    /// The models, as the vendor names them; `*` stands for any text.
    pub models: Vec<String>,
    /// Tokens read.
    pub input: String,
    /// Those of them that the vendor had cached [default: as `input`].
    pub cached_input: Option<String>,
    /// Those of them that it wrote to its cache [default: as `input`].
    pub cache_write: Option<String>,
    /// Tokens written.
    pub output: String,
    /// For each request, in dollars [default: 0].
    pub request: Option<String>,
    /// The day that it is known for, `YYYY-MM-DD`. A row of the table must have one.
    pub known: Option<String>,
    /// The page that it is from. A row of the table must have one.
    pub source: Option<String>,
    /// What long prompts cost, where that differs.
    pub above: Option<PriceTier>,
}

impl PriceRow {
    /// Whether a policy may have it.
    ///
    /// # Errors
    /// An amount or a date cannot be read, or it names no model.
    pub fn check(&self) -> Result<(), PriceError> {
        Compiled::of_policy(self).map(drop)
    }
}

/// What all tokens of a request cost whose prompt is long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTier {
    /// For prompts of more tokens than this.
    pub prompt_tokens: u32,
    /// As [`PriceRow::input`].
    pub input: String,
    /// As [`PriceRow::cached_input`].
    pub cached_input: Option<String>,
    /// As [`PriceRow::cache_write`].
    pub cache_write: Option<String>,
    /// As [`PriceRow::output`].
    pub output: String,
}

/// Why prices cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PriceError {
    /// The table is no table of prices.
    #[error("cannot read the table of prices")]
    Table(#[source] toml::de::Error),
    /// It is not signed as it should be.
    #[error(transparent)]
    Signature(SignatureError),
    /// An amount cannot be read.
    #[error("cannot read the price of {vendor:?} for {model:?}")]
    Amount {
        /// The row's vendor.
        vendor: String,
        /// Its first model.
        model: String,
        /// Why.
        #[source]
        source: NoAmount,
    },
    /// A date cannot be read, or is missing where it must be there.
    #[error("the price of {vendor:?} for {model:?} has no day: expected known = \"YYYY-MM-DD\"")]
    Date {
        /// The row's vendor.
        vendor: String,
        /// Its first model.
        model: String,
    },
    /// It is the price of nothing.
    #[error("a price of {vendor:?} names no model")]
    NoModel {
        /// The row's vendor.
        vendor: String,
    },
}

impl tieline_types::Hint for PriceError {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    price: Vec<PriceRow>,
}

pub(super) fn read(text: &str) -> Result<Vec<PriceRow>, PriceError> {
    toml::from_str(text).map(|table: Table| table.price).map_err(PriceError::Table)
}

/// A row as it is used.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    vendor: String,
    models: Vec<String>,
    /// Whether the vendor may be a backend's name too.
    policy: bool,
    pub(super) priced: Priced,
}

impl Compiled {
    pub(super) fn of_table(row: &PriceRow) -> Result<Self, PriceError> {
        let (Some(date), Some(url)) = (date(row)?, row.source.clone()) else {
            return Err(no_date(row));
        };
        Self::new(row, PriceSource::Table { date, url })
    }

    pub(super) fn of_policy(row: &PriceRow) -> Result<Self, PriceError> {
        Self::new(row, PriceSource::Policy { date: date(row)? })
    }

    fn new(row: &PriceRow, source: PriceSource) -> Result<Self, PriceError> {
        if row.models.is_empty() {
            return Err(PriceError::NoModel { vendor: row.vendor.clone() });
        }
        let fail =
            |source| PriceError::Amount { vendor: row.vendor.clone(), model: model(row), source };
        let policy = matches!(source, PriceSource::Policy { .. });
        let request = or(row.request.as_deref(), MicroUsd::ZERO).map_err(fail)?;
        let priced = Priced {
            price: price(row, request).map_err(fail)?,
            above: row
                .above
                .as_ref()
                .map(|above| tier(above, request))
                .transpose()
                .map_err(fail)?,
            source,
        };
        Ok(Self { vendor: row.vendor.clone(), models: row.models.clone(), policy, priced })
    }

    /// How exactly it names this model, where it does.
    pub(super) fn matches(&self, target: Target<'_>) -> Option<usize> {
        let backend = self.policy && glob::matches(&self.vendor, target.backend);
        if !backend && !glob::matches(&self.vendor, target.vendor) {
            return None;
        }
        let named = self.models.iter().filter(|model| glob::matches(model, target.model));
        named.map(|model| glob::exactness(model)).max()
    }
}

fn model(row: &PriceRow) -> String {
    row.models.first().cloned().unwrap_or_default()
}

fn no_date(row: &PriceRow) -> PriceError {
    PriceError::Date { vendor: row.vendor.clone(), model: model(row) }
}

fn date(row: &PriceRow) -> Result<Option<Date>, PriceError> {
    row.known.as_ref().map(|known| known.parse().map_err(|_| no_date(row))).transpose()
}

fn price(row: &PriceRow, request: MicroUsd) -> Result<Price, NoAmount> {
    let input = parse_usd(&row.input)?;
    Ok(Price {
        input,
        cached_input: or(row.cached_input.as_deref(), input)?,
        cache_write: or(row.cache_write.as_deref(), input)?,
        output: parse_usd(&row.output)?,
        request,
    })
}

fn tier(tier: &PriceTier, request: MicroUsd) -> Result<(Tokens, Price), NoAmount> {
    let input = parse_usd(&tier.input)?;
    let price = Price {
        input,
        cached_input: or(tier.cached_input.as_deref(), input)?,
        cache_write: or(tier.cache_write.as_deref(), input)?,
        output: parse_usd(&tier.output)?,
        request,
    };
    Ok((Tokens(tier.prompt_tokens), price))
}

fn or(text: Option<&str>, default: MicroUsd) -> Result<MicroUsd, NoAmount> {
    text.map_or(Ok(default), parse_usd)
}
