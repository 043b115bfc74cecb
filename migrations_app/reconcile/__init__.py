"""The loop: snapshot -> decide (pure) -> apply. The only writer of what a gateway was observed to run."""
