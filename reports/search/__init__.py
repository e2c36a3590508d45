"""Reports of searches: trials, spaces, and what the search gained."""
