"""One file for each kind of source that examples are read from; each returns (uint8 images, int32 labels)."""
