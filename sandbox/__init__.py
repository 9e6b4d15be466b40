"""A stand-in for a Letta server: the endpoints that the compactor uses, over one small SQLite file."""
