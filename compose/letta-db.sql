-- Letta's own migrations need it, and only a superuser may make it.
CREATE EXTENSION IF NOT EXISTS vector;
