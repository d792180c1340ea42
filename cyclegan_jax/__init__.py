"""CycleGAN in JAX: unpaired image-to-image translation."""
