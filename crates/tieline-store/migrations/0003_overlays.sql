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
