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
