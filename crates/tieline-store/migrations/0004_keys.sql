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
