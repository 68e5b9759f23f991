"""Adds the columns that v2 needs. v1 goes on with `name`: as long as there are both, triggers fill in the other.

It may run again: after a rollback, v2 is deployed once more.
"""

import sqlite3

FILL = """\
UPDATE people SET
  first = substr(name, 1, instr(name || ' ', ' ') - 1),
  last = substr(name, instr(name || ' ', ' ') + 1)
WHERE first IS NULL AND name IS NOT NULL"""

db = sqlite3.connect("data/people.db", timeout=10, isolation_level=None)
db.execute("BEGIN IMMEDIATE")
if "first" not in {row[1] for row in db.execute("PRAGMA table_info(people)")}:
    db.execute("ALTER TABLE people ADD COLUMN first TEXT")
    db.execute("ALTER TABLE people ADD COLUMN last TEXT")
    db.execute(FILL)
    db.execute(f"CREATE TRIGGER v1_writes AFTER INSERT ON people BEGIN {FILL} AND id = new.id; END")
    db.execute(
        "CREATE TRIGGER v2_writes AFTER INSERT ON people WHEN new.name IS NULL "
        "BEGIN UPDATE people SET name = trim(first || ' ' || last) WHERE id = new.id; END"
    )
db.execute("COMMIT")
