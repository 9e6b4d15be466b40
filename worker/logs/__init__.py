"""The log: one line for each thing that happened, with the ids that it concerns; JSON for machines, text for people."""
