"""WHAT is done: scans, compactions, and the ledger that proves them."""
