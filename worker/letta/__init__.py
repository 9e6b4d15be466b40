"""The Letta API: an async client, the models of what it answers, and the errors it can meet."""
