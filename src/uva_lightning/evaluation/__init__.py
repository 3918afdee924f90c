"""Evaluation that can be trusted: suites of scenarios, played in worker processes, journalled and reported."""
