"""The networks, as linen modules that know nothing of data or training."""
