"""Tokenizers: frozen maps between frames and latent tokens."""
