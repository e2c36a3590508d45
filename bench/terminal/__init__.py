"""What commands show in a terminal: what there is to do, how far it is, what was said, and why. Nothing here starts or
changes anything."""
