//! Who gets through which door, as a table that is kept in `docs/doors.txt`: every route of the table is asked in
//! every way, its handler replaced by one that only says that it was reached.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use axum::routing::{MethodFilter, on};
use testkit::scripted::Scripted;
use tieline_router::Router;
use tieline_store::keys::{NewKey, Scope, Secret, admin_token};
use tieline_store::{Catalogue, Environment, Store};
use tower::ServiceExt;

use super::Peer;
use crate::app::{App, Library};
use crate::config::{Config, Doors, LoopbackAuth};
use crate::routes::{Dialect, Guard, Route};
use crate::service::service;
use crate::table::table;

const PAGE: &str = "https://app.example";

struct World {
    app: App,
    service: axum::Router,
    /// What callers show, by name.
    keys: Vec<(&'static str, Option<String>)>,
    _home: tempfile::TempDir,
}

fn world(policy: LoopbackAuth) -> World {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let token = admin_token(home.path()).unwrap();
    let key = |scopes: &[Scope], expires_at_unix_s| {
        let new = NewKey { scopes: scopes.to_vec(), expires_at_unix_s, ..NewKey::default() };
        store.create_key(&new, 1).unwrap()
    };
    let (revoked, gone) = key(&[Scope::Admin], None);
    store.revoke_key(&gone.id, 2).unwrap();
    let text = |secret: &Secret| Some(secret.expose().to_owned());
    let of = |scope| text(&key(&[scope], None).0);
    let keys = vec![
        ("no key", None),
        ("any words", Some("ollama".to_owned())),
        ("admin token", text(&token)),
        ("infer", of(Scope::Infer)),
        ("embed", of(Scope::Embed)),
        ("models.read", of(Scope::ReadModels)),
        ("models.write", of(Scope::WriteModels)),
        ("admin", of(Scope::Admin)),
        ("revoked", text(&revoked)),
        ("ended", text(&key(&[Scope::Admin], Some(2)).0)),
        ("forged", Some(format!("tl_user_{}_000000", "0".repeat(32)))),
    ];
    let doors = Doors {
        origins: vec![PAGE.to_owned()],
        loopback_auth: policy,
        admin_token: Some(token),
        ..Doors::default()
    };
    let library = Library {
        store,
        catalogue: Arc::new(Catalogue::embedded().unwrap()),
        environment: Arc::new(Environment::new("http://127.0.0.1:9".to_owned())),
    };
    let router = Router::new(Arc::new(Scripted::hello()), None);
    let app = App::new(router, library, Config { doors, ..Config::default() });
    app.refresh_keys().unwrap();
    let service = service(routes().into_iter().map(reached).collect(), app.clone());
    World { app, service, keys, _home: home }
}

/// All routes, and one of each class that there may be no route of.
fn routes() -> Vec<Route> {
    let specimen = |path, guard| {
        let nothing = on(MethodFilter::POST, || async {});
        Route::new((Method::POST, path), (Dialect::Own, guard), nothing)
    };
    let mut routes = table();
    routes.push(specimen("/specimen/manage", Guard::Manage));
    routes.push(specimen("/specimen/embed", Guard::Infer));
    routes.push(specimen("/specimen/read", Guard::Read));
    routes
}

/// The route, which only says that it was reached.
fn reached(route: Route) -> Route {
    let filter = MethodFilter::try_from(route.method.clone()).unwrap();
    Route { handler: on(filter, || async { StatusCode::NO_CONTENT }), ..route }
}

/// One way to ask.
#[derive(Clone, Copy)]
struct Way {
    loopback: bool,
    host: &'static str,
    origin: Option<&'static str>,
    cross_site: bool,
}

const USUAL: Way = Way { loopback: true, host: "localhost:11434", origin: None, cross_site: false };

impl World {
    async fn ask(&self, route: &Route, way: Way, key: Option<&str>) -> u16 {
        let path = route.path.replace("{*", "{");
        let mut parts = path.split(['{', '}']);
        let mut path = String::new();
        while let Some(fixed) = parts.next() {
            path.push_str(fixed);
            if parts.next().is_some() {
                path.push('x');
            }
        }
        let mut request = Request::builder().method(route.method.clone()).uri(path);
        request = request.header("host", way.host);
        for (name, value) in [
            ("origin", way.origin),
            ("sec-fetch-site", way.cross_site.then_some("cross-site")),
            ("x-api-key", key),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let mut request = request.body(Body::empty()).unwrap();
        let peer = Peer { loopback: way.loopback, ..Peer::local(11434) };
        request.extensions_mut().insert(peer);
        self.service.clone().oneshot(request).await.unwrap().status().as_u16()
    }
}

/// What a route's guard and scopes are, as one word: routes of one class are answered alike.
fn class(route: &Route) -> &'static str {
    match route.guard {
        Guard::Open => "open",
        Guard::Read => "read",
        Guard::Infer if route.scopes().contains(&Scope::Embed) => "embed",
        Guard::Infer => "infer",
        Guard::Manage => "manage",
    }
}

/// Whether nothing comes of it but an answer: no model is loaded, and nothing changes.
fn only_reads(route: &Route) -> bool {
    matches!(route.guard, Guard::Open | Guard::Read)
        && matches!(route.method, Method::GET | Method::HEAD)
}

const BAD_WAYS: [(&str, Way); 4] = [
    ("another host", Way { host: "evil.example:11434", ..USUAL }),
    ("another page", Way { origin: Some("https://evil.example"), ..USUAL }),
    ("page `null`", Way { origin: Some("null"), ..USUAL }),
    ("other site", Way { cross_site: true, ..USUAL }),
];

/// The answers to all keys, for each class of routes; every route of a class must be answered alike.
async fn matrix(policy: LoopbackAuth, way: Way) -> BTreeMap<&'static str, Vec<u16>> {
    let world = world(policy);
    let mut rows: BTreeMap<&'static str, Vec<u16>> = BTreeMap::new();
    for route in routes() {
        // What only reads is let through: a page of another site cannot see the answer.
        if way.cross_site && way.origin.is_none() && only_reads(&route) {
            continue;
        }
        let mut row = Vec::new();
        for (_, key) in &world.keys {
            row.push(world.ask(&route, way, key.as_deref()).await);
        }
        let known = rows.entry(class(&route)).or_insert_with(|| row.clone());
        assert_eq!(*known, row, "{} {} is not answered as its class", route.method, route.path);
    }
    assert_eq!(world.app.places().taken(), 0);
    rows
}

async fn written() -> String {
    let mut text = "Who gets through which door. Written by a test from the table of routes, with every handler\n\
                    replaced by one that answers 204: 204 is `let through`.\n"
        .to_owned();
    let names = world(LoopbackAuth::Off).keys;
    for (title, policy, way) in [
        ("this machine, loopback_auth = off", LoopbackAuth::Off, USUAL),
        ("this machine, loopback_auth = manage", LoopbackAuth::Manage, USUAL),
        (
            "this machine, loopback_auth = manage, an allowed page asks",
            LoopbackAuth::Manage,
            Way { origin: Some(PAGE), cross_site: true, ..USUAL },
        ),
        ("this machine, loopback_auth = all", LoopbackAuth::All, USUAL),
        (
            "other machines, whatever loopback_auth",
            LoopbackAuth::Off,
            Way { loopback: false, ..USUAL },
        ),
    ] {
        let rows = matrix(policy, way).await;
        let _ = write!(text, "\n{title}\n{:14}", "");
        for class in rows.keys() {
            let _ = write!(text, "{class:>8}");
        }
        for (at, (name, _)) in names.iter().enumerate() {
            let _ = write!(text, "\n  {name:12}");
            for row in rows.values() {
                let _ = write!(text, "{:>8}", row[at]);
            }
        }
        text.push('\n');
    }
    text.push_str("\nrefused before any key is read, whoever asks, loopback_auth = off\n");
    for (name, way) in BAD_WAYS {
        let rows = matrix(LoopbackAuth::Off, way).await;
        for (class, row) in rows {
            let found: std::collections::BTreeSet<_> = row.into_iter().collect();
            let _ = writeln!(text, "  {name:17}{class:8}{found:?}");
        }
    }
    text.push_str("\nroutes\n");
    for route in table() {
        let (method, dialect) = (route.method.as_str(), route.dialect.as_str());
        let _ = writeln!(text, "  {:8}{method:8}{dialect:10}{}", class(&route), route.path);
    }
    text
}

/// To write it anew: `DOORS=write cargo nextest run -p tieline-server every_door`.
#[tokio::test]
async fn every_door_opens_to_whom_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/doors.txt");
    let found = written().await;
    if std::env::var_os("DOORS").is_some() {
        std::fs::write(path, &found).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, kept, "docs/doors.txt is not what the routes are: see this test");
}

/// What must hold whatever the text says.
#[tokio::test]
async fn no_route_is_left_unguarded() {
    let remote = matrix(LoopbackAuth::Off, Way { loopback: false, ..USUAL }).await;
    for (class, row) in remote.iter().filter(|(class, _)| **class != "open") {
        // No key, any words, the admin token; revoked, ended, forged.
        assert!(row[..3].iter().chain(&row[8..]).all(|status| *status == 401), "{class}: {row:?}");
    }
    for (name, way) in &BAD_WAYS {
        for row in matrix(LoopbackAuth::Off, *way).await.values() {
            assert!(row.iter().all(|status| matches!(status, 403 | 421)), "{name}: {row:?}");
        }
    }
}

#[tokio::test]
async fn who_came_through_no_listener_is_refused() {
    let world = world(LoopbackAuth::Off);
    let request = Request::get("/livez").header("host", "localhost:11434");
    let request = request.body(Body::empty()).unwrap();
    let response = world.service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
}
