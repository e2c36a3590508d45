"""One paper, one file: the recipes. No torch here."""
