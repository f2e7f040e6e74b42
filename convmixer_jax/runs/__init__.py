"""What a run leaves behind and how it is interrupted: checkpoints, metrics, progress, signals."""
