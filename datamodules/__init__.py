"""Datamodules: one dataset per file; here also the readers of their layouts and the windows cut from them."""

if __name__ == "datamodules":
    raise ImportError("This folder is the package uva_lightning.datamodules; import it by that name, not datamodules.")
