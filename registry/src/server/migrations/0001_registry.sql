-- Which registry this is: its change feed has an order of its own.
CREATE TABLE registry (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    identity TEXT NOT NULL
) STRICT;

CREATE TABLE models (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    description TEXT,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL
) STRICT;

-- The last version number given under a name. It outlives the model, so that no number ever
-- names two different versions.
CREATE TABLE version_counters (
    name TEXT PRIMARY KEY,
    last_number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE versions (
    id INTEGER PRIMARY KEY,
    model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    description TEXT,
    source TEXT NOT NULL,
    -- Where its files lie among the artifacts; everything there is frozen.
    artifact_root TEXT NOT NULL,
    run_id TEXT,
    run_link TEXT,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    UNIQUE (model_id, number)
) STRICT;

CREATE INDEX versions_by_artifact_root ON versions (artifact_root);

CREATE TABLE version_files (
    version_id INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (version_id, path)
) STRICT, WITHOUT ROWID;

CREATE INDEX version_files_by_digest ON version_files (digest);

CREATE TRIGGER version_files_are_immutable BEFORE UPDATE ON version_files
BEGIN
    SELECT RAISE (ABORT, 'the files of a version are immutable');
END;

CREATE TABLE model_tags (
    model_id INTEGER NOT NULL REFERENCES models (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE version_tags (
    version_id INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (version_id, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE aliases (
    model_id INTEGER NOT NULL,
    alias TEXT NOT NULL,
    number INTEGER NOT NULL,
    PRIMARY KEY (model_id, alias),
    FOREIGN KEY (model_id, number) REFERENCES versions (model_id, number) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

-- The artifact tree: which bytes lie at a path. The bytes are blobs by their digest.
CREATE TABLE artifacts (
    path TEXT PRIMARY KEY,
    digest TEXT NOT NULL,
    size INTEGER NOT NULL,
    modified INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX artifacts_by_digest ON artifacts (digest);

-- The change feed. AUTOINCREMENT never gives a sequence twice, and a transaction that fails
-- takes its numbers back.
CREATE TABLE changes (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    version INTEGER,
    alias TEXT
) STRICT;

CREATE TRIGGER changes_are_immutable BEFORE UPDATE ON changes
BEGIN
    SELECT RAISE (ABORT, 'the change feed is immutable');
END;
