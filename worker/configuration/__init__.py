"""The settings by noun, each a part of the one object in `worker.settings`."""
