"""How long calls take, and on what machine."""
