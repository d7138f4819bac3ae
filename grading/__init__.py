"""What instructors run."""
