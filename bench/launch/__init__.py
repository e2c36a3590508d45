"""Where jobs run: the loop that brings a store to a plan, the ports it asks, and the places there are."""
