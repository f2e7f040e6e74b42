"""Using trained weights: loading them from wherever they are, and what is done with them."""
