"""Measurements that ``uva bench`` makes."""
