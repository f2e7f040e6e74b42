"""What `python -m convmixer_jax.benchmark` measures: ours beside what people would use instead, in one run."""
