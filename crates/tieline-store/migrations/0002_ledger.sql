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
