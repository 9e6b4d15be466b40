"""The policy: pure decisions about when to compact and with which settings."""
