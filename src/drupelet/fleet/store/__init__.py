"""The fleet's database: one schema, two engines (SQLite and PostgreSQL), short transactions."""
