"""A gallery in PostgreSQL, with the extension pgvector. Needs the extra ``postgres``."""
