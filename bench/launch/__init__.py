"""Where jobs run: the loop that brings a store to a plan, the ports it uses, and the kinds of launcher."""
