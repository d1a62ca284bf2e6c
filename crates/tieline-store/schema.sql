-- A file under blobs/, and how it looked when its bytes were last hashed.
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY CHECK (length(digest) = 64),
    size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    mismatch INTEGER NOT NULL DEFAULT 0 CHECK (mismatch IN (0, 1)),
    architecture TEXT,
    quantisation TEXT,
    parameters INTEGER,
    context_length_tokens INTEGER,
    template_digest TEXT,
    is_adapter INTEGER NOT NULL DEFAULT 0 CHECK (is_adapter IN (0, 1))
) STRICT;

-- A name, and where the bytes behind it came from.
CREATE TABLE models (
    name TEXT PRIMARY KEY,
    digest TEXT NOT NULL REFERENCES blobs (digest),
    source TEXT NOT NULL,
    reference TEXT NOT NULL,
    licence TEXT,
    pinned INTEGER NOT NULL CHECK (pinned IN (0, 1)),
    pulled_at_unix_s INTEGER NOT NULL
) STRICT;

CREATE INDEX models_by_digest ON models (digest);

-- Every pull that ended well. A process that waited for another's pull finds the result here.
CREATE TABLE pulls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    target TEXT NOT NULL,
    digest TEXT NOT NULL,
    source TEXT NOT NULL,
    pulled_at_unix_s INTEGER NOT NULL
) STRICT;

-- What loaded models held, beside what was planned. The newest few of each kind are kept.
CREATE TABLE loads (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    architecture TEXT NOT NULL,
    settings TEXT NOT NULL,
    digest TEXT NOT NULL,
    planned_bytes INTEGER NOT NULL,
    held_bytes INTEGER NOT NULL,
    at_unix_s INTEGER NOT NULL
) STRICT;

CREATE INDEX loads_by_kind ON loads (architecture, settings);

-- Runners that died at work. The newest few of each model are kept.
CREATE TABLE deaths (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL,
    how TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL
) STRICT;

-- Models that are not started until somebody lifts it.
CREATE TABLE quarantine (
    digest TEXT PRIMARY KEY CHECK (length(digest) = 64),
    reason TEXT NOT NULL,
    since_unix_s INTEGER NOT NULL
) STRICT;

-- A model by another name: what is said before its conversations, and how it chooses words.
CREATE TABLE overlays (
    name TEXT PRIMARY KEY,
    base TEXT NOT NULL,
    system TEXT,
    template TEXT,
    licence TEXT,
    parameters TEXT NOT NULL,
    messages TEXT NOT NULL,
    changed_at_unix_s INTEGER NOT NULL
) STRICT;
-- Keys that callers show. The secret is not here: it has 190 random bits, so its SHA-256 tells nothing of it.
CREATE TABLE keys (
    id TEXT PRIMARY KEY CHECK (length(id) = 8),
    digest TEXT NOT NULL UNIQUE CHECK (length(digest) = 64),
    label TEXT NOT NULL,
    scopes TEXT NOT NULL,
    models TEXT,
    requests_per_minute INTEGER CHECK (requests_per_minute > 0),
    created_at_unix_s INTEGER NOT NULL,
    expires_at_unix_s INTEGER,
    last_used_at_unix_s INTEGER,
    revoked_at_unix_s INTEGER
) STRICT;

-- What happened to each request, without a word of it. The newest are kept.
CREATE TABLE requests (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    key TEXT NOT NULL,
    dialect TEXT NOT NULL,
    operation TEXT NOT NULL,
    model TEXT NOT NULL,
    reason TEXT NOT NULL,
    digest TEXT,
    outcome TEXT NOT NULL,
    error TEXT,
    prompt_tokens INTEGER,
    cached_tokens INTEGER,
    completion_tokens INTEGER,
    first_token_us INTEGER,
    total_us INTEGER NOT NULL,
    backend TEXT NOT NULL DEFAULT '',
    vendor TEXT NOT NULL DEFAULT '',
    zone TEXT NOT NULL DEFAULT 'host',
    attempt INTEGER NOT NULL DEFAULT 1 CHECK (attempt > 0),
    project TEXT NOT NULL DEFAULT '',
    data_class TEXT,
    policy_rule TEXT,
    cache_write_tokens INTEGER,
    reasoning_tokens INTEGER,
    sources TEXT NOT NULL DEFAULT 'mmmmm' CHECK (length(sources) = 5),
    price_source TEXT,
    price_date TEXT,
    cost_micro_usd INTEGER,
    cost_at_least INTEGER NOT NULL DEFAULT 0 CHECK (cost_at_least IN (0, 1)),
    reserved_micro_usd INTEGER,
    sent_bytes INTEGER,
    redacted INTEGER,
    reservation TEXT
) STRICT;

CREATE INDEX requests_by_time ON requests (at_unix_ms);

-- What a scope spent in a period, and what is reserved of it now. The open amount is the sum of the scope's open
-- reservations; the uncertain one is the part of the settled one that nobody confirmed.
CREATE TABLE budgets (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    period TEXT NOT NULL,
    settled_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (settled_micro_usd >= 0),
    uncertain_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (uncertain_micro_usd >= 0),
    open_micro_usd INTEGER NOT NULL DEFAULT 0 CHECK (open_micro_usd >= 0),
    PRIMARY KEY (kind, id, period)
) STRICT, WITHOUT ROWID;

-- What requests on their way may cost at most. `owner` names the lock that the process holds which made it.
CREATE TABLE reservations (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    scopes TEXT NOT NULL,
    amount_micro_usd INTEGER NOT NULL CHECK (amount_micro_usd >= 0),
    state TEXT NOT NULL CHECK (state IN ('open', 'settled', 'released', 'uncertain')),
    settled_micro_usd INTEGER CHECK (settled_micro_usd >= 0),
    created_at_unix_s INTEGER NOT NULL,
    closed_at_unix_s INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX reservations_by_state ON reservations (state, closed_at_unix_s);

-- What decisions were made on besides the request itself: who could answer, as far as that changes seldom, under which
-- policy, by which version of this program. By what is in it, so that decisions share it.
CREATE TABLE grounds (
    number INTEGER PRIMARY KEY,
    digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    policy BLOB CHECK (length(policy) = 32),
    program TEXT NOT NULL,
    format INTEGER NOT NULL,
    body BLOB NOT NULL,
    last_used_bytes INTEGER NOT NULL
) STRICT;

-- What each request was decided on, what was decided and what became of it, without a word of it. Compressed by what
-- stands in its grounds. `end_bytes` counts the bytes that were written until its end: the newest less the oldest is
-- what they take. No foreign key: it would need an index for itself alone.
CREATE TABLE decisions (
    end_bytes INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    key TEXT NOT NULL,
    grounds INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

CREATE INDEX decisions_by_id ON decisions (id);
CREATE INDEX decisions_by_time ON decisions (at_unix_ms);

-- What `bench` measured of a model, for each content, build of the runner and context.
CREATE TABLE benches (
    digest TEXT NOT NULL,
    build TEXT NOT NULL,
    context_tokens INTEGER NOT NULL,
    prefill_tps REAL,
    decode_tps REAL,
    load_s REAL,
    first_token_s REAL,
    samples INTEGER NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    joules_per_prompt_token REAL,
    joules_per_token REAL,
    PRIMARY KEY (digest, build, context_tokens)
) STRICT, WITHOUT ROWID;

-- How far a model's own confidence can be believed at a task. The calibration is JSON.
CREATE TABLE calibrations (
    digest TEXT NOT NULL,
    task TEXT NOT NULL,
    calibration TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    PRIMARY KEY (digest, task)
) STRICT, WITHOUT ROWID;

-- How often a model was right at a task: sums, one row for each of their origins. `model` is a digest, or
-- `backend/model` for somebody else's.
CREATE TABLE outcomes (
    model TEXT NOT NULL,
    task TEXT NOT NULL,
    origin TEXT NOT NULL,
    correct REAL NOT NULL,
    answers INTEGER NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    PRIMARY KEY (model, task, origin)
) STRICT, WITHOUT ROWID;

-- What a server learned from answers: of each candidate's speed, of the length of answers. JSON of numbers.
CREATE TABLE learned (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    seen TEXT NOT NULL,
    at_unix_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
