"""What makes data sets ready before a run: archives, checks, arrays of decoded images."""
