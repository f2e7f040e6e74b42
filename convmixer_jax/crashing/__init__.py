"""What the crash test does to real runs, and what it expects of them."""
