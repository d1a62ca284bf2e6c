-- Whether a file is no model but an adapter, which changes one.
ALTER TABLE blobs ADD COLUMN is_adapter INTEGER NOT NULL DEFAULT 0 CHECK (is_adapter IN (0, 1));
