"""What a run would need and cost, found by compiling it, for devices that are here or absent."""
