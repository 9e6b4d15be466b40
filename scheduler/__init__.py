"""WHEN it is done: the beat app and its entries."""
