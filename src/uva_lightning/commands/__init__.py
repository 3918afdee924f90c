"""What the ``uva`` command runs: one file per subject, imported only when it is asked for."""
