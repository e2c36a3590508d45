"""The command line: a file per command, with its options, what it does and what it prints."""
