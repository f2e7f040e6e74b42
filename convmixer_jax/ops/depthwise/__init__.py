"""The depthwise convolution: one contract, and an implementation of it for each kind of hardware."""
