"""WHO WATCHES: the command line, the supervisor, the doctor."""
