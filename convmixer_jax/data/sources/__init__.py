"""One file for each kind of source that examples are read from."""
