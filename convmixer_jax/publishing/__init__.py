"""Results that are published with the code: what finished runs gave, as files of the repository, and their table."""
