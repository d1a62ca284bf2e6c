//! `tieline route replay`

mod text;

use jiff::Timestamp;
use tieline_router::replay::{Again, Kept, Reader, Replay, Report, Same, Unreadable};
use tieline_store::Store;

use crate::app::App;
use crate::args::RouteReplay;
use crate::commands::cost::point;
use crate::commands::prices;
use crate::failure::{Failure, with_causes};
use crate::switching::{self, Place};

pub(super) fn replay(app: &App, args: &RouteReplay) -> Result<(), Failure> {
    let now = Timestamp::now();
    let since = point(args.since, now)?;
    let until = args.until.map_or(Ok(now), |until| point(until, now))?;
    if since >= until {
        return Err(Failure::user("--since is not before --until"));
    }
    let policy = Place::of(app).policy()?;
    let terms = !policy.terms.is_empty() || policy.git_identity.is_some();
    let remotes = switching::candidates(&policy, &prices::with_policy(&app.store, &policy)?);
    let remotes =
        remotes.into_iter().map(|(one, priced)| (one, priced.map(|priced| priced.source)));
    let again = Again::new(policy, remotes.collect());
    let span = (since.as_millisecond(), until.as_millisecond());
    if args.same {
        return same(app, &again, span);
    }
    let report = run(&app.store, Replay::new(again), span)?.report(args.seed);
    if app.output.is_json() {
        return app.output.value(&report);
    }
    show(app, &report, (since, until), terms)
}

/// Hands all that is on record of a span to `each`.
fn read(
    store: &Store,
    span: (i64, i64),
    mut each: impl FnMut(Result<&Kept, Option<&Unreadable>>),
) -> Result<(), Failure> {
    let mut reader = Reader::default();
    let read = store.decisions_between(span, |row| match row.map(|row| reader.read(&row)) {
        Ok(Ok(kept)) => each(Ok(&kept)),
        Ok(Err(why)) => each(Err(Some(&why))),
        Err(_) => each(Err(None)),
    });
    read.map_err(|error| Failure::ours(with_causes(&error)))
}

fn run(store: &Store, mut replay: Replay, span: (i64, i64)) -> Result<Replay, Failure> {
    // Twice: what was judged late in the span tells of cascades at its beginning too.
    read(store, span, |kept| {
        if let Ok(kept) = kept {
            replay.hear(kept);
        }
    })?;
    read(store, span, |kept| match kept {
        Ok(kept) => replay.add(kept),
        Err(why) => replay.unreadable(why),
    })?;
    Ok(replay)
}

fn show(
    app: &App,
    report: &Report,
    (since, until): (Timestamp, Timestamp),
    terms: bool,
) -> Result<(), Failure> {
    if report.requests + report.by_name + report.unreadable + report.newer == 0 {
        app.output.talk(&format!(
            "no decisions are on record since {}; `tieline serve` records them",
            since.strftime("%Y-%m-%d")
        ));
        return Ok(());
    }
    let days = format!("{} to {}", since.strftime("%Y-%m-%d"), until.strftime("%Y-%m-%d"));
    app.output.line(&text::text(report, &days, terms))
}

/// Whether what this policy decided is decided in the same way again.
fn same(app: &App, again: &Again, span: (i64, i64)) -> Result<(), Failure> {
    let mut same = Same::of(again.digest());
    read(&app.store, span, |kept| match kept {
        Ok(kept) => same.add(again, kept),
        Err(why) => same.unreadable(why),
    })?;
    if app.output.is_json() {
        app.output.value(&same)?;
    } else {
        app.output.line(&text::same(&same))?;
    }
    if same.different.count > 0 {
        return Err(Failure::ours(format!("{} decisions are others now", same.different.count))
            .with_hint("another version of this program may decide otherwise; the same must not"));
    }
    if same.same == 0 {
        return Err(Failure::user("no decision of this policy is on record: nothing was checked"));
    }
    Ok(())
}
