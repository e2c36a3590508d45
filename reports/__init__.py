"""Tables, plots and deltas from records; never runs anything."""
