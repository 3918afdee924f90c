"""Methods that weigh the losses of several objectives, one per file."""
