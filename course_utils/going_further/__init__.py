"""What only a chapter of "Going further" needs."""
