"""The page: one self-contained HTML file of a report (`bench report SUITE --html`)."""
