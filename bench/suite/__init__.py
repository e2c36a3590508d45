"""The input: YAML -> Suite, its rows, the methods there are, the clusters for jobs, and messages that name a line."""
