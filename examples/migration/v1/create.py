"""Makes the database, if it is not there."""

import sqlite3

db = sqlite3.connect("data/people.db", timeout=10)
db.execute("PRAGMA journal_mode = WAL")
db.execute("CREATE TABLE IF NOT EXISTS people (id INTEGER PRIMARY KEY, name TEXT)")
