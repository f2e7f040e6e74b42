"""The CPU's operations in C++, compiled on the machine that runs them."""
