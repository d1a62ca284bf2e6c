-- Who answered from where, for which project and under which rule, what left this machine for it, and what it cost.
-- One row for each attempt; rows of one call share its id. Rows from before are of this machine's own models.
ALTER TABLE requests ADD COLUMN backend TEXT NOT NULL DEFAULT '';
ALTER TABLE requests ADD COLUMN vendor TEXT NOT NULL DEFAULT '';
ALTER TABLE requests ADD COLUMN zone TEXT NOT NULL DEFAULT 'host';
ALTER TABLE requests ADD COLUMN attempt INTEGER NOT NULL DEFAULT 1 CHECK (attempt > 0);
ALTER TABLE requests ADD COLUMN project TEXT NOT NULL DEFAULT '';
ALTER TABLE requests ADD COLUMN data_class TEXT;
ALTER TABLE requests ADD COLUMN policy_rule TEXT;
ALTER TABLE requests ADD COLUMN cache_write_tokens INTEGER;
ALTER TABLE requests ADD COLUMN reasoning_tokens INTEGER;
ALTER TABLE requests ADD COLUMN sources TEXT NOT NULL DEFAULT 'mmmmm' CHECK (length(sources) = 5);
ALTER TABLE requests ADD COLUMN price_source TEXT;
ALTER TABLE requests ADD COLUMN price_date TEXT;
ALTER TABLE requests ADD COLUMN cost_micro_usd INTEGER;
ALTER TABLE requests ADD COLUMN cost_at_least INTEGER NOT NULL DEFAULT 0 CHECK (cost_at_least IN (0, 1));
ALTER TABLE requests ADD COLUMN reserved_micro_usd INTEGER;
ALTER TABLE requests ADD COLUMN sent_bytes INTEGER;
ALTER TABLE requests ADD COLUMN redacted INTEGER;

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
