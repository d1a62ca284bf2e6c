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
