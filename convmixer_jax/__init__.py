"""Train, evaluate and restore ConvMixer models ("Patches Are All You Need?", arXiv 2201.09792) with JAX."""

__version__ = "0.1.0"
