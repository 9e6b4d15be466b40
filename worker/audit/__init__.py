"""The ledger: its tables, what is done with them, and their migrations."""
