-- Under which name an attempt was noted before it left: tells whether what a killed process left is on record.
ALTER TABLE requests ADD COLUMN reservation TEXT;
