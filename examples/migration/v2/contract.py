"""Takes away the column that only v1 needed. From here on there is no going back to v1."""

import sqlite3

db = sqlite3.connect("data/people.db", timeout=10, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
if "name" in {row[1] for row in db.execute("PRAGMA table_info(people)")}:
    db.execute("DROP TRIGGER v1_writes")
    db.execute("DROP TRIGGER v2_writes")
    db.execute("ALTER TABLE people DROP COLUMN name")
db.execute("COMMIT")
