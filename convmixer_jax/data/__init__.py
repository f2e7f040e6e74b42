"""Examples: which data sets there are, where they are read from, and which example comes n-th."""
