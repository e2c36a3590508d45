"""What is asked for: YAML -> Suite, its rows, which methods there are, the clusters that jobs may go to, and messages
that name a line."""
