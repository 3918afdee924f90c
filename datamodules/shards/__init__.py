"""Shards: a data set as tar files with an index, with latents or with pictures; plain ``webdataset`` reads them too."""
