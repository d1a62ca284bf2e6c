//! What the user typed for `tieline cost`.

use clap::{Args as ClapArgs, ValueEnum, value_parser};
use jiff::civil::Date;
use tieline_router::prices::parse_usd;
use tieline_types::MicroUsd;

use super::serving::time;

#[derive(Debug, ClapArgs)]
pub(crate) struct Cost {
    /// Sum by this
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = By::Day)]
    pub(crate) by: By,
    /// Since when: a time ago such as 7d, or a day such as 2026-11-01 (UTC)
    #[arg(long, value_name = "WHEN", default_value = "30d", value_parser = since)]
    pub(crate) since: Since,
    /// The vendor's model that a bill for everything is reckoned with [default: the first that was asked]
    #[arg(long, value_name = "VENDOR/MODEL", value_parser = vendor_model)]
    pub(crate) compare: Option<VendorModel>,
    /// What this machine draws while it answers, in watts, for models whose energy `bench` did not measure; with a tariff
    /// [default: the policy's, as for those that follow]
    #[arg(long, value_name = "WATTS", value_parser = milliwatts)]
    pub(crate) watts: Option<u32>,
    /// What a kilowatt hour costs, in dollars
    #[arg(long, value_name = "DOLLARS", value_parser = dollars)]
    pub(crate) tariff: Option<MicroUsd>,
    /// What this machine cost, in dollars; with --life
    #[arg(long, value_name = "DOLLARS", value_parser = dollars, requires = "life")]
    pub(crate) hardware: Option<MicroUsd>,
    /// How many hours it answers until it is replaced; with --hardware
    #[arg(long, value_name = "HOURS", value_parser = value_parser!(u32).range(1..=1_000_000), requires = "hardware")]
    pub(crate) life: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// Days (UTC)
    Day,
    /// Models
    Model,
    /// Keys
    Key,
    /// Projects
    Project,
    /// How far requests travelled
    Zone,
    /// Backends
    Backend,
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    /// So many seconds ago.
    Ago(u64),
    /// The start of this day.
    Day(Date),
}

/// A model of a vendor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VendorModel {
    pub(crate) vendor: String,
    pub(crate) model: String,
}

pub(super) fn since(text: &str) -> Result<Since, String> {
    if let Ok(day) = text.parse() {
        return Ok(Since::Day(day));
    }
    let ago =
        time(text).map_err(|_| "expected a time such as 7d or 12h, or a day such as 2026-11-01")?;
    Ok(Since::Ago(ago.as_secs()))
}

fn vendor_model(text: &str) -> Result<VendorModel, String> {
    match text.split_once('/') {
        Some((vendor, model)) if !vendor.is_empty() && !model.is_empty() => {
            Ok(VendorModel { vendor: vendor.to_owned(), model: model.to_owned() })
        }
        _ => Err("expected a vendor and its model, such as openai/gpt-4o".to_owned()),
    }
}

/// Through the same exact reader as money: thousandths are all that a wattmeter shows.
fn milliwatts(text: &str) -> Result<u32, String> {
    let micros = parse_usd(text).ok().map(|micros| micros.0 / 1000);
    let milliwatts = micros.and_then(|milliwatts| u32::try_from(milliwatts).ok());
    milliwatts.ok_or_else(|| "expected watts, such as 65 or 12.5".to_owned())
}

fn dollars(text: &str) -> Result<MicroUsd, String> {
    parse_usd(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_is_a_time_ago_or_a_day() {
        assert_eq!(since("7d"), Ok(Since::Ago(604_800)));
        assert_eq!(since("2026-11-01"), Ok(Since::Day(jiff::civil::date(2026, 11, 1))));
        assert!(since("yesterday").is_err() && since("2026-13-01").is_err());
    }

    #[test]
    fn a_model_has_a_vendor_and_watts_have_a_point() {
        let model = vendor_model("groq/openai/gpt-oss-20b").unwrap();
        assert_eq!((model.vendor.as_str(), model.model.as_str()), ("groq", "openai/gpt-oss-20b"));
        assert!(vendor_model("gpt-4o").is_err() && vendor_model("/x").is_err());
        assert_eq!(milliwatts("12.5"), Ok(12_500));
        assert!(milliwatts("-1").is_err() && milliwatts("99999999").is_err());
    }
}
