//! What answers take of the energy, by counters that a test moves: no machine of ours has real ones.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tieline_store::{RequestRow, Store};

use super::home::Home;

/// A processor that takes the more the longer it runs, so that work after the rest takes more than it.
fn run(zone: &Path, ended: &AtomicBool) {
    let since = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        let seconds = since.elapsed().as_secs_f64();
        let microjoules = (1e6 * seconds * seconds * seconds).round();
        fs::write(zone.join("next"), format!("{microjoules}\n")).unwrap();
        fs::rename(zone.join("next"), zone.join("energy_uj")).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_a_token_takes_is_measured_kept_and_billed() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let zone = folder.path().join("intel-rapl:0");
    fs::create_dir(&zone).unwrap();
    for (file, text) in
        [("name", "package-0"), ("max_energy_range_uj", "262143328850"), ("energy_uj", "0")]
    {
        fs::write(zone.join(file), text).unwrap();
    }
    let home = Home::with_model();
    let ended = AtomicBool::new(false);
    let sizes = ["--prefill", "32", "--decode", "4", "--repeat", "2", "--threads", "1", "--json"];
    let report = std::thread::scope(|scope| {
        scope.spawn(|| run(&zone, &ended));
        let bench = home.tieline(["bench", "smollm2"]).args(&sizes);
        let report =
            bench.args(&["--powercap", folder.path().to_str().unwrap()]).runner(&runner).json();
        ended.store(true, Ordering::Relaxed);
        report
    });
    let energy = &report["energy"];
    let number = |part: &str| energy[part]["median"].as_f64().unwrap();
    assert_eq!(energy["of"], "processor");
    assert!(energy["rest_watts"].as_f64().unwrap() > 0.0, "{energy}");
    assert!(number("prefill") > 0.0 && number("decode") > 0.0, "{energy}");
    assert!(report["energy_unknown"].is_null());
    let shown = home.tieline(["show", "smollm2"]).text();
    assert!(shown.contains("J/token (measured by bench, 2 samples"), "{shown}");

    let row = RequestRow {
        model: "smollm2".to_owned(),
        at_unix_ms: 1_793_000_000_000,
        prompt_tokens: Some(3_000_000),
        cached_tokens: Some(0),
        completion_tokens: Some(1_000_000),
        ..RequestRow::default()
    };
    Store::open(&home.path()).unwrap().record_requests(&[row]).unwrap();
    let args = ["cost", "--since", "2026-01-01", "--tariff", "0.36", "--json"];
    let bill = &home.tieline(args).json()["baselines"]["all_local"];
    let joules = 3e6 * number("prefill") + 1e6 * number("decode");
    let told = bill["energy"]["joules"].as_f64().unwrap();
    assert!((told - joules).abs() < 1e-6 * joules, "{bill} {joules}");
    assert_eq!(bill["energy"]["source"], "measured");
    // A tenth of a millionth of a dollar for each joule.
    let dollars = bill["energy"]["cost_micro_usd"].as_f64().unwrap();
    assert!((dollars - joules / 10.0).abs() <= 1.0, "{bill}");
    assert!(bill["hardware"].is_null());
}
