"""The HTTP door: verify, commit, answer; what comes of it is the workers'."""
