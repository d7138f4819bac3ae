"""What authors run: notebooks executed again, the student edition, the site."""
