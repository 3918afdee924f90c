"""The shared latent transformer, what feeds it and what reads it."""
