"""The page: one self-contained HTML file of a report (`bench report SUITE --html`)."""

MOST_IMAGES = 300  # of a val, in the image browser, unless another number is asked for
