"""What happens to training images on the device, batched, inside the compiled step."""
