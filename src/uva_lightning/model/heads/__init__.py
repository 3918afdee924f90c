"""Heads: small denoisers that read one modality out of the joint latent (UVA section 3.4)."""
