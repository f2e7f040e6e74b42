"""Files of weights: PyTorch's, with their names and layouts, and our own."""
