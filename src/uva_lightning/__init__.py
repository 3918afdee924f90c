"""One latent transformer, many functions: the Unified Video Action model as a PyTorch Lightning framework."""

__version__ = "0.1.0"
