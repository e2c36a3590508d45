"""What has been done: a folder per stage, leases, attempts, done files; and how files are written whole."""
