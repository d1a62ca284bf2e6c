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
