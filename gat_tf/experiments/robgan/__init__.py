"""The experiments of the Rob-GAN paper, a file each, on networks that they share."""
