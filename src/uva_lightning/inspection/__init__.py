"""Looking at a data set: its facts, its pictures, and what may be wrong with it."""
