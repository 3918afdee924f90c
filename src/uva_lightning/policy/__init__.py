"""What one needs at run time: observations in, actions and imagined frames out."""
