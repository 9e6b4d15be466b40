"""The contract: the requests of Letta's compaction API as strict models, and their errors as plain sentences."""
