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
    template_digest TEXT
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
    total_us INTEGER NOT NULL
) STRICT;

CREATE INDEX requests_by_time ON requests (at_unix_ms);
