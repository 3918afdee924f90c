"""What checkpoints have learnt, beside what they can do: probes, attention, video and success in one table."""
